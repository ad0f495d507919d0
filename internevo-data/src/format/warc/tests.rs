//! Archives compressed in every way, sound and damaged.

use std::io::Write as _;

use super::*;

fn record(kind: &str, id: usize, content: &[u8]) -> Vec<u8> {
    let header = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{id}>\r\nWARC-Target-URI: http://a.example/{id}\r\n\
         WARC-Date: 2024-05-01T00:00:0{}Z\r\nContent-Length: {}\r\n\r\n",
        id % 10,
        content.len()
    );
    [header.as_bytes(), content, b"\r\n\r\n"].concat()
}

fn response(id: usize) -> Vec<u8> {
    let page = format!("<html><body><p>Page {id}: {}</p></body></html>", "word ".repeat(40 + id % 7));
    let http = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{page}");
    record("response", id, http.as_bytes())
}

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory")
}

/// Ids of the documents, and reasons of the faults in their places.
fn read(name: &str, bytes: &[u8]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).expect("write");
    let mut reader = WarcReader::open(&path).expect("open");
    let (mut found, mut buffer) = (Vec::new(), Vec::new());
    loop {
        match reader.next_record(&mut buffer).expect("readable") {
            RawRecord::End => return found,
            RawRecord::Damaged(fault) => found.push(format!("{fault}")),
            RawRecord::Record => {
                let document = Document::from_line(&buffer, || unreachable!("it has an id")).expect("a document");
                assert_eq!(document.field("url"), Some(format!("http://a.example/{}", document.id).as_str()));
                found.push(document.id);
            }
        }
    }
}

#[test]
fn pages_are_the_same_however_the_file_is_compressed() {
    let redirect = record("response", 3, b"HTTP/1.1 301 Moved\r\nContent-Type: text/html\r\n\r\n<p>no</p>");
    let image = record("response", 4, b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n\x89PNG");
    let records = [
        record("warcinfo", 0, b"software: x\r\n"),
        response(1),
        record("request", 2, b"GET / HTTP/1.1\r\n\r\n"),
        redirect,
        image,
        record("conversion", 5, "Text of a WET file, 中文".as_bytes()),
        response(6),
    ];
    let whole = records.concat();
    let members: Vec<u8> = records.iter().flat_map(|record| gz(record)).collect();
    let expected = ["1", "5", "6"];
    assert_eq!(read("a.warc", &whole), expected);
    assert_eq!(read("a.warc.gz", &members), expected);
    assert_eq!(read("a.warc.gz", &gz(&whole)), expected);
    assert_eq!(read("a.warc.zst", &zstd::encode_all(&*whole, 1).expect("memory")), expected);
}

#[test]
fn each_damaged_record_is_one_fault_and_its_neighbours_are_read() {
    let mut records: Vec<Vec<u8>> = (0..9).map(response).collect();
    let cut = records[2].len() - 30;
    records[2].truncate(cut);
    records[5] = b"garbage\r\nmore garbage\r\n".to_vec();
    records[7] = String::from_utf8(response(7)).expect("text").replace("Content-Length: ", "Content-Length: x").into();
    let members: Vec<u8> = records.iter().flat_map(|record| gz(record)).collect();
    let found = read("a.warc.gz", &members);
    let ids: Vec<&str> = found.iter().map(|f| if f.contains("malformed_record") { "!" } else { f }).collect();
    assert_eq!(ids, ["0", "1", "!", "3", "4", "!", "6", "!", "8"], "{found:?}");
    assert!(found[2].contains("the record ends after") && found[5].contains("garbage"), "{found:?}");
    // In one stream the short record swallows the beginning of the next one.
    let found = read("a.warc", &records.concat());
    let ids: Vec<&str> = found.iter().map(|f| if f.contains("malformed_record") { "!" } else { f }).collect();
    assert!(ids.starts_with(&["0", "1"]) && ids.ends_with(&["4", "!", "6", "!", "8"]), "{found:?}");
}

#[test]
fn a_damaged_gzip_member_costs_one_record_and_a_truncated_file_its_end() {
    let members: Vec<Vec<u8>> = (0..9).map(|id| gz(&response(id))).collect();
    let mut damaged = members.clone();
    let middle = damaged[4].len() / 2;
    damaged[4][middle..middle + 8].fill(0xaa);
    let found = read("a.warc.gz", &damaged.concat());
    // Damage shows as broken compression or as a broken header, whichever comes first.
    let reasons = [LineFault::TRUNCATED_ARCHIVE, LineFault::MALFORMED_RECORD];
    assert!(reasons.iter().any(|reason| found[4].contains(reason)), "{found:?}");
    assert_eq!([&found[..4], &found[5..]].concat(), ["0", "1", "2", "3", "5", "6", "7", "8"]);
    let whole = members.concat();
    let found = read("a.warc.gz", &whole[..whole.len() - 20]);
    assert_eq!((found.len(), found[8].contains(LineFault::TRUNCATED_ARCHIVE)), (9, true), "{found:?}");
}

#[test]
fn a_reader_continues_where_another_stopped() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("a.warc.gz");
    std::fs::write(&path, (0..5).flat_map(|id| gz(&response(id))).collect::<Vec<u8>>()).expect("write");
    let (mut first, mut second) = (WarcReader::open(&path).expect("open"), WarcReader::open(&path).expect("open"));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    (0..3).for_each(|_| assert_eq!(first.next_record(&mut a).expect("page"), RawRecord::Record));
    second.skip_to(first.offset(), first.record()).expect("skip");
    first.next_record(&mut a).expect("page");
    second.next_record(&mut b).expect("page");
    assert_eq!((a, first.record()), (b, second.record()));
}
