//! Event files read back by a reader that shares no code with the writer: bitwise CRC, generic protobuf fields.

use super::*;

/// CRC-32C bit by bit (RFC 3720, appendix B.4).
fn slow_crc32c(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

fn slow_mask(data: &[u8]) -> u32 {
    // TensorFlow's `((crc >> 15) | (crc << 17)) + kMaskDelta`.
    slow_crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[derive(Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn take_varint(at: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = at[0];
        *at = &at[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn take<'a>(at: &mut &'a [u8], n: usize) -> &'a [u8] {
    let (head, tail) = at.split_at(n);
    *at = tail;
    head
}

fn fields(mut at: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut out = Vec::new();
    while !at.is_empty() {
        let key = take_varint(&mut at);
        let value = match key & 7 {
            0 => Field::Number(take_varint(&mut at)),
            1 => Field::Number(u64::from_le_bytes(take(&mut at, 8).try_into().expect("eight bytes"))),
            2 => {
                let n = take_varint(&mut at) as usize;
                Field::Bytes(take(&mut at, n))
            }
            5 => Field::Number(u64::from(u32::from_le_bytes(take(&mut at, 4).try_into().expect("four bytes")))),
            other => panic!("wire type {other}"),
        };
        out.push((key >> 3, value));
    }
    out
}

#[derive(Debug, Default, PartialEq)]
struct Decoded {
    wall_time: f64,
    step: u64,
    version: String,
    session_start: bool,
    scalars: Vec<(String, f32)>,
}

fn decode_event(message: &[u8]) -> Decoded {
    let mut event = Decoded::default();
    for (number, field) in fields(message) {
        match (number, field) {
            (1, Field::Number(bits)) => event.wall_time = f64::from_bits(bits),
            (2, Field::Number(step)) => event.step = step,
            (3, Field::Bytes(text)) => event.version = String::from_utf8(text.to_vec()).expect("UTF-8"),
            (7, Field::Bytes(log)) => event.session_start = matches!(fields(log)[..], [(1, Field::Number(1))]),
            (5, Field::Bytes(summary)) => {
                for (_, value) in fields(summary) {
                    let Field::Bytes(value) = value else { panic!("a value is a message") };
                    let [(1, Field::Bytes(tag)), (2, Field::Number(bits))] = fields(value)[..] else {
                        panic!("{value:?}")
                    };
                    event.scalars.push((String::from_utf8_lossy(tag).into(), f32::from_bits(bits as u32)));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    event
}

fn decode(path: &Path) -> Vec<Decoded> {
    let bytes = storage::read(path).expect("read");
    let mut at = bytes.as_slice();
    let mut events = Vec::new();
    while !at.is_empty() {
        let length = take(&mut at, 8);
        assert_eq!(take(&mut at, 4), slow_mask(length).to_le_bytes(), "checksum of a length");
        let payload = take(&mut at, u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize);
        assert_eq!(take(&mut at, 4), slow_mask(payload).to_le_bytes(), "checksum of a payload");
        events.push(decode_event(payload));
    }
    events
}

fn files(run: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(run.join(FOLDER)).expect("list").map(|e| e.expect("entry").path()).collect();
    files.sort();
    files
}

fn write(run: &Path, resumed_step: u64, records: &[StepRecord]) {
    let mut sink = TensorBoard::build(TensorBoardConfig {}, &SinkContext { run_dir: run, resumed_step }).expect("open");
    records.iter().for_each(|record| sink.record(record).expect("record"));
    sink.flush().expect("flush");
}

#[test]
fn checksums_are_crc32c_with_the_published_answers() {
    // RFC 3720, B.4.
    assert_eq!(slow_crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(slow_crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(event::masked_crc(&[0xff; 32]), 0x62a8_ab43u32.rotate_right(15).wrapping_add(0xa282_ead8));
    for n in 0..70u8 {
        let data: Vec<u8> = (0..n).map(|i| i.wrapping_mul(37)).collect();
        assert_eq!(event::masked_crc(&data), slow_mask(&data), "{n} bytes");
    }
}

#[test]
fn another_reader_finds_every_scalar_of_every_step() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let records: Vec<StepRecord> = (1..=200)
        .map(|step| StepRecord {
            step,
            loss: 8.5 - step as f64 / 100.0,
            tgs: 1234.5,
            mfu: (step % 2 == 0).then_some(0.5),
            valid_loss: (step % 50 == 0).then_some(2.0),
            ..StepRecord::default()
        })
        .collect();
    write(dir.path(), 0, &records);
    let [file] = &files(dir.path())[..] else { panic!("one file") };
    let events = decode(file);
    assert_eq!(events[0].version, "brain.Event:2");
    assert_eq!(events.len(), 201, "no session start in a first file");
    for (record, event) in records.iter().zip(&events[1..]) {
        let scalar = |tag: &str| event.scalars.iter().find(|(t, _)| t == tag).map(|(_, v)| *v);
        assert_eq!(event.step, record.step);
        assert_eq!(scalar("loss"), Some(record.loss as f32));
        assert_eq!(scalar("tgs (tokens/gpu/second)"), Some(1234.5));
        assert_eq!(scalar("mfu"), record.mfu.map(|m| m as f32));
        assert_eq!(scalar("val/valid_loss"), record.valid_loss.map(|l| l as f32));
        assert!(event.wall_time > 1.6e9);
    }
}

#[test]
fn a_resumed_run_starts_a_later_file_that_voids_the_interrupted_steps() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let step = |step| StepRecord { step, ..StepRecord::default() };
    write(dir.path(), 0, &[step(1), step(2), step(3)]);
    let first = files(dir.path());
    write(dir.path(), 2, &[step(3)]);
    write(dir.path(), 0, &[step(1)]);
    let all = files(dir.path());
    assert_eq!(all.len(), 3);
    assert_eq!(all[0], first[0], "the new files come after the old one in order of name");
    let starts: Vec<(bool, u64)> =
        all[1..].iter().map(|f| decode(f)).map(|e| (e[1].session_start, e[1].step)).collect();
    assert_eq!(starts, [(true, 3), (true, 1)]);
    let name = all[0].file_name().and_then(OsStr::to_str).expect("UTF-8");
    let parts: Vec<_> = name.split('.').collect();
    assert_eq!(
        (parts[..3].join("."), parts[3].len(), parts.len()),
        ("events.out.tfevents".to_owned(), 10, 7),
        "{name}"
    );
}
