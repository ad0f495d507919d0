//! The HTTP responses inside of WARC records: as much as it takes to get at a page's bytes.

use std::{borrow::Cow, io::Read};

use super::encoding::escaped;

/// A page unpacks to no more than this; the rest is cut off.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// A response.
pub(super) struct Response<'a> {
    status: u16,
    headers: Vec<(String, Cow<'a, str>)>,
    body: &'a [u8],
}

impl<'a> Response<'a> {
    /// Reads the header of a response.
    pub fn parse(content: &'a [u8]) -> Result<Self, String> {
        let mut rest = content;
        let mut line = || {
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let line = &rest[..end];
            rest = &rest[end + 1..];
            Some(line.trim_ascii_end())
        };
        let first = line().unwrap_or_default();
        let status = first.strip_prefix(b"HTTP/").and_then(|rest| {
            let code = rest.split(|byte| *byte == b' ').nth(1)?;
            std::str::from_utf8(code).ok()?.parse().ok()
        });
        let status = status
            .ok_or_else(|| format!("no HTTP response begins with `{}`", escaped(&first[..first.len().min(60)])))?;
        let mut headers = Vec::new();
        while let Some(line) = line().filter(|line| !line.is_empty()) {
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                let name = String::from_utf8_lossy(&line[..colon]).trim().to_ascii_lowercase();
                headers.push((name, String::from_utf8_lossy(line[colon + 1..].trim_ascii())));
            }
        }
        Ok(Self { status, headers, body: rest })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }

    /// The `type` of a document of this response: `html` or `text`; `None` when it is neither, or no success.
    pub fn text_kind(&self) -> Option<&'static str> {
        if !(200..300).contains(&self.status) {
            return None;
        }
        let media = self.header("content-type").unwrap_or("text/html").split(';').next().unwrap_or_default();
        match media.trim().to_ascii_lowercase().as_str() {
            "" | "text/html" | "application/xhtml+xml" => Some("html"),
            "text/plain" => Some("text"),
            _ => None,
        }
    }

    /// The declared charset.
    pub fn charset(&self) -> Option<&str> {
        let value = self.header("content-type")?;
        let at = value.to_ascii_lowercase().find("charset=")? + "charset=".len();
        let label = value[at..].split(';').next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        (!label.is_empty()).then_some(label)
    }

    /// The page's bytes, without transfer and content encodings.
    pub fn body(&self) -> Result<Cow<'a, [u8]>, String> {
        let is_chunked = self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        // Crawlers store the page unpacked and often keep the header that says otherwise.
        let body = match is_chunked.then(|| dechunk(self.body)).flatten() {
            Some(joined) => Cow::Owned(joined),
            None => Cow::Borrowed(self.body),
        };
        let packed = self.header("content-encoding").unwrap_or_default().to_ascii_lowercase();
        let mut unpacked = Vec::new();
        let result = match packed.as_str() {
            "gzip" | "x-gzip" if body.starts_with(&[0x1f, 0x8b]) => {
                flate2::read::MultiGzDecoder::new(&*body).take(MAX_BODY_BYTES).read_to_end(&mut unpacked)
            }
            "deflate" if body.first().is_some_and(|byte| byte & 0x0f == 8) => {
                flate2::read::ZlibDecoder::new(&*body).take(MAX_BODY_BYTES).read_to_end(&mut unpacked)
            }
            "br" | "zstd" if std::str::from_utf8(&body).is_err() => return Err(format!("content encoding `{packed}`")),
            _ => return Ok(body),
        };
        result.map_err(|error| format!("content encoding `{packed}`: {error}"))?;
        Ok(Cow::Owned(unpacked))
    }
}

/// The chunks of a chunked body; `None` when it is not in chunks.
fn dechunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::with_capacity(body.len());
    loop {
        let end = body.iter().position(|byte| *byte == b'\n')?;
        let size = std::str::from_utf8(&body[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        body = &body[end + 1..];
        if size == 0 {
            return Some(joined);
        }
        joined.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?;
        body = body.strip_prefix(b"\r\n").or_else(|| body.strip_prefix(b"\n"))?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn body(headers: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let content = [format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), body].concat();
        let response = Response::parse(&content)?;
        response.body().map(Cow::into_owned)
    }

    #[test]
    fn transfer_and_content_encodings_are_undone_where_they_are_real() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"hello page").expect("memory");
        let packed = encoder.finish().expect("memory");
        let chunks = [format!("{:x}\r\n", packed.len()).as_bytes(), &packed, b"\r\n0\r\n\r\n"].concat();
        let both = "Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n";
        for (headers, content) in [("", &b"hello page"[..]), (both, &chunks), ("Content-Encoding: gzip\r\n", &packed)] {
            assert_eq!(body(headers, content).expect("a body"), b"hello page");
        }
        assert_eq!(body(both, b"hello page").expect("stored unpacked"), b"hello page");
        assert!(body("Content-Encoding: br\r\n", b"\x0b\xff\xfe").expect_err("packed").contains("`br`"));
    }

    #[test]
    fn what_is_a_page_is_told_by_status_and_type() {
        for (head, kind) in [
            ("HTTP/1.1 200 OK\r\nContent-Type: text/html", Some("html")),
            ("HTTP/2 200\r\ncontent-type: TEXT/PLAIN; charset=x", Some("text")),
            ("HTTP/1.0 404 No\r\nContent-Type: text/html", None),
            ("HTTP/1.1 200 OK\r\nContent-Type: application/pdf", None),
        ] {
            let content = format!("{head}\r\n\r\n");
            assert_eq!(Response::parse(content.as_bytes()).expect("a response").text_kind(), kind, "{head}");
        }
        let content = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=\"GBK\"\r\n\r\n";
        assert_eq!(Response::parse(content).expect("a response").charset(), Some("GBK"));
        assert!(Response::parse(b"<html>").is_err());
    }
}
