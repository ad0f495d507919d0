//! Bytes to text: declared and detected encodings, and the repair of text that was decoded with the wrong one.
//!
//! Nothing is repaired where the repair could do harm: a byte sequence that its encoding does not allow is a fault of the document,
//! and mojibake is undone only where the whole document testifies to it.

use std::fmt::Write as _;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};

/// A declaration is looked for in this many bytes at the beginning of a page (HTML's own rule).
const DECLARATION_BYTES: usize = 1024;
/// Bytes that a guess is based on.
const GUESS_BYTES: usize = 64 << 10;
/// Fewest sequences of mojibake in a text that is repaired.
const MIN_SEQUENCES: usize = 3;

/// A text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The text.
    pub text: String,
    /// The encoding's name, as the WHATWG writes it: `UTF-8`, `windows-1252`, `GBK`, …
    pub encoding: &'static str,
}

/// Decodes a page: by its byte order mark, as UTF-8 where it is that, by `declared` (the `charset` of a protocol), by the declaration
/// inside of it, else by a guess of its letters (chardetng).
///
/// # Errors
/// The encoding, when the bytes are not of it.
pub fn decode_page(bytes: &[u8], declared: Option<&str>) -> Result<Decoded, &'static str> {
    if let Some(decoded) = decode_declared(bytes, declared) {
        return decoded;
    }
    let mut detector = chardetng::EncodingDetector::new(chardetng::Iso2022JpDetection::Deny);
    detector.feed(&bytes[..bytes.len().min(GUESS_BYTES)], bytes.len() <= GUESS_BYTES);
    decode_as(bytes, detector.guess(None, chardetng::Utf8Detection::Allow))
}

/// Decodes bytes that say what they are: by byte order mark, as UTF-8 where they are that, by `declared` or a declaration inside of
/// them. `None` when nothing does.
pub fn decode_declared(bytes: &[u8], declared: Option<&str>) -> Option<Result<Decoded, &'static str>> {
    if let Some((encoding, length)) = Encoding::for_bom(bytes) {
        return Some(decode_as(&bytes[length..], encoding));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Some(Ok(Decoded { text: text.to_owned(), encoding: UTF_8.name() }));
    }
    let label = declared.map(str::to_owned).or_else(|| declaration(bytes))?;
    let encoding = Encoding::for_label(label.as_bytes())?;
    Some(decode_as(bytes, encoding))
}

fn decode_as(bytes: &[u8], encoding: &'static Encoding) -> Result<Decoded, &'static str> {
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes).ok_or(encoding.name())?;
    Ok(Decoded { text: text.into_owned(), encoding: encoding.name() })
}

/// The value of `charset=` or an XML `encoding=` near the beginning.
fn declaration(bytes: &[u8]) -> Option<String> {
    let head = bytes[..bytes.len().min(DECLARATION_BYTES)].to_ascii_lowercase();
    let find = |key: &[u8]| head.windows(key.len()).position(|window| window == key).map(|at| at + key.len());
    let at = find(b"charset=").or_else(|| find(b"encoding="))?;
    let label = head[at..].trim_ascii_start();
    let label = label.strip_prefix(b"\"").or_else(|| label.strip_prefix(b"'")).unwrap_or(label);
    let end = label.iter().position(|b| !(b.is_ascii_alphanumeric() || b"-_:.".contains(b))).unwrap_or(label.len());
    std::str::from_utf8(&label[..end]).ok().filter(|label| !label.is_empty()).map(str::to_owned)
}

/// Undoes UTF-8 that was read as windows-1252 (`cafÃ©` for `café`, `â€™` for `’`); `None` when the text is not clearly that.
///
/// Clearly: there are at least three such sequences, and no other character beyond ASCII that windows-1252 has. A text that merely
/// mentions `Ã©` beside real accents stays as it is.
pub fn undo_mojibake(text: &str) -> Option<String> {
    let (mut out, mut sequences, mut run) = (String::with_capacity(text.len()), 0, Vec::new());
    for c in text.chars().chain(['\0']) {
        if let Some(byte) = windows_1252_byte(c) {
            run.push(byte);
            continue;
        }
        if !run.is_empty() {
            let repaired = std::str::from_utf8(&run).ok()?;
            if repaired.chars().any(char::is_control) {
                return None;
            }
            sequences += repaired.chars().count();
            out.push_str(repaired);
            run.clear();
        }
        out.push(c);
    }
    out.pop();
    (sequences >= MIN_SEQUENCES).then_some(out)
}

/// The byte above 0x7f that windows-1252 reads as `c`.
fn windows_1252_byte(c: char) -> Option<u8> {
    if c.is_ascii() {
        return None;
    }
    if ('\u{a0}'..='\u{ff}').contains(&c) || ('\u{80}'..='\u{9f}').contains(&c) {
        return Some(c as u8);
    }
    let mut buffer = [0; 4];
    let (bytes, _, failed) = WINDOWS_1252.encode(c.encode_utf8(&mut buffer));
    (!failed && bytes.len() == 1).then(|| bytes[0])
}

/// Bytes as text for a human reader, what is not UTF-8 as `\xNN`.
pub fn escaped(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::with_capacity(bytes.len()), |mut text, chunk| {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| write!(text, "\\x{byte:02x}").expect("a string takes everything"));
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "Der Bär fraß süße Äpfel – „très bien“, sagte er.";

    #[test]
    fn a_page_is_decoded_by_mark_declaration_or_letters() {
        let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(TEXT.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        assert_eq!(decode_page(&utf16, None).expect("UTF-16").text, TEXT);
        let latin = WINDOWS_1252.encode(TEXT).0.into_owned();
        assert_eq!(decode_page(&latin, Some("iso-8859-1")).expect("declared").text, TEXT);
        let chinese = "<meta charset=\"gb2312\"><p>所有权是 Rust 最独特的特性，它让内存安全。";
        let gbk = encoding_rs::GBK.encode(chinese).0.into_owned();
        let decoded = decode_page(&gbk, None).expect("declared inside");
        assert_eq!((decoded.text.as_str(), decoded.encoding), (chinese, "GBK"));
        let bare = encoding_rs::GBK.encode(&chinese[22..].repeat(5)).0.into_owned();
        assert_eq!(decode_page(&bare, None).expect("guessed").text, chinese[22..].repeat(5));
        assert_eq!(decode_page(TEXT.as_bytes(), Some("windows-1252")).expect("UTF-8").text, TEXT);
    }

    #[test]
    fn bytes_that_are_not_of_their_encoding_are_named_and_undeclared_ones_are_nobodys() {
        assert_eq!(decode_page(b"\xef\xbb\xbfabc\xff", None), Err("UTF-8"));
        assert_eq!(decode_page(b"\x81", Some("shift_jis")), Err("Shift_JIS"));
        assert_eq!(decode_declared(b"caf\xe9", None), None);
        assert_eq!(decode_declared(b"caf\xe9", Some("no-such-charset")), None);
    }

    #[test]
    fn mojibake_is_undone_and_honest_accents_are_left_alone() {
        let garbled = WINDOWS_1252.decode(TEXT.as_bytes()).0.into_owned();
        assert_eq!(undo_mojibake(&garbled).as_deref(), Some(TEXT));
        for honest in [TEXT, "In PHP, é shows as Ã©, è as Ã¨ and ê as Ãª.", "plain", "Ã©", "所有权"] {
            assert_eq!(undo_mojibake(honest), None, "{honest}");
        }
    }

    proptest! {
        #[test]
        fn repair_gives_back_every_text_it_touches(text in "[a-zà-ÿ €’“”–]{0,60}") {
            let garbled = WINDOWS_1252.decode(text.as_bytes()).0.into_owned();
            if let Some(repaired) = undo_mojibake(&garbled) {
                prop_assert_eq!(repaired, text);
            }
        }

        #[test]
        fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), label in "[a-z0-9-]{0,12}") {
            let _ = decode_page(&bytes, Some(&label));
            prop_assert!(std::str::from_utf8(&bytes).is_err() || escaped(&bytes).as_bytes() == bytes);
        }
    }
}
