//! The header of a record.

use super::{
    super::encoding::escaped,
    stream::{Stream, Trouble},
};

/// Most lines of a header.
const MAX_HEADER_LINES: usize = 1000;

/// The fields of a header that matter.
#[derive(Debug, Default)]
pub struct Header {
    pub kind: String,
    pub id: String,
    pub url: String,
    pub date: String,
    /// Bytes of the content.
    pub length: u64,
}

impl Header {
    /// Reads the header of the record that begins here.
    pub fn read(stream: &mut Stream) -> Result<Self, Trouble> {
        let version = stream.line()?;
        if !version.starts_with(b"WARC/") {
            let shown = escaped(&version[..version.len().min(60)]);
            return Err(Trouble::Malformed(format!("a record begins with `WARC/`, not with `{shown}`")));
        }
        let (mut header, mut length) = (Self::default(), None);
        for _ in 0..MAX_HEADER_LINES {
            let line = stream.line()?;
            if line.is_empty() {
                header.length = length.ok_or_else(|| Trouble::Malformed("no Content-Length".into()))?;
                return Ok(header);
            }
            let line = String::from_utf8_lossy(&line);
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "warc-type" => header.kind = value.to_ascii_lowercase(),
                "warc-record-id" => {
                    header.id = value.trim_matches(['<', '>']).trim_start_matches("urn:uuid:").to_owned();
                }
                "warc-target-uri" => header.url = value.trim_matches(['<', '>']).to_owned(),
                "warc-date" => header.date = value.to_owned(),
                "content-length" => {
                    let bytes = value.parse().map_err(|_| Trouble::Malformed(format!("Content-Length `{value}`")))?;
                    length = Some(bytes);
                }
                _ => {}
            }
        }
        Err(Trouble::Malformed("the header has no end".into()))
    }
}
