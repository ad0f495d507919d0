//! The numpy file of InternEvo's `.meta`: a two-column table of integers.
//! Origin: numpy `numpy/lib/format.py`, versions 1.0 to 3.0.

/// A `.npy` of shape `(rows, 2)`, int32, C order, as `numpy.save` writes it.
pub(super) fn write_pairs_i32(pairs: &[(i32, i32)]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({}, 2), }}", pairs.len());
    // Magic, version and length take ten bytes; the data starts at a multiple of 64 and the header ends in a newline.
    let padding = 63 - (10 + header.len()) % 64;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    for (a, b) in pairs {
        bytes.extend_from_slice(&a.to_le_bytes());
        bytes.extend_from_slice(&b.to_le_bytes());
    }
    bytes
}

/// Reads a table of shape `(rows, 2)`, int32 or int64. The error says what was expected and what was found.
pub(super) fn read_pairs(bytes: &[u8]) -> Result<Vec<(i64, i64)>, (String, String)> {
    let (header, data) = split_header(bytes)?;
    let field = |name: &str| header.split_once(name).map(|(_, rest)| rest.trim_start_matches([':', ' ']));
    let width = match field("'descr'") {
        Some(rest) if rest.starts_with("'<i4'") => 4,
        Some(rest) if rest.starts_with("'<i8'") => 8,
        _ => return Err(("little-endian int32 or int64".into(), header.trim_end().into())),
    };
    if !field("'fortran_order'").is_some_and(|rest| rest.starts_with("False")) {
        return Err(("rows in C order".into(), header.trim_end().into()));
    }
    let shape = field("'shape'").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).map(|(shape, _)| shape);
    let rows = shape.and_then(|s| match s.split(',').map(str::trim).collect::<Vec<_>>()[..] {
        [rows, "2"] => rows.parse::<usize>().ok(),
        _ => None,
    });
    let rows = rows.ok_or_else(|| ("a table of two columns".into(), header.trim_end().into()))?;
    if Some(data.len()) != rows.checked_mul(2 * width) {
        return Err((format!("{rows} rows of {} bytes", 2 * width), format!("{} bytes of data", data.len())));
    }
    let values: Vec<i64> = match width {
        4 => data.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        _ => data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
    };
    Ok(values.as_chunks::<2>().0.iter().map(|[offset, count]| (*offset, *count)).collect())
}

fn split_header(bytes: &[u8]) -> Result<(&str, &[u8]), (String, String)> {
    let wrong = || ("a numpy array (.npy)".to_owned(), format!("{} bytes that are not one", bytes.len()));
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(wrong)?;
    let (version, rest) = rest.split_at_checked(2).ok_or_else(wrong)?;
    let length_bytes = if version[0] == 1 { 2 } else { 4 };
    let (length, rest) = rest.split_at_checked(length_bytes).ok_or_else(wrong)?;
    let length = length.iter().rev().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    let (header, data) = rest.split_at_checked(length).ok_or_else(wrong)?;
    Ok((std::str::from_utf8(header).map_err(|_| wrong())?, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.save(f, numpy.array([(0, 3), (18, 1)], dtype=numpy.int32))`, numpy's own bytes.
    fn golden() -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00v\x00{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2), }".to_vec();
        bytes.resize(127, b' ');
        bytes.push(b'\n');
        bytes.extend([0, 0, 0, 0, 3, 0, 0, 0, 18, 0, 0, 0, 1, 0, 0, 0]);
        bytes
    }

    #[test]
    fn the_bytes_are_those_of_numpy() {
        assert_eq!(write_pairs_i32(&[(0, 3), (18, 1)]), golden());
        assert_eq!(read_pairs(&golden()).unwrap(), [(0, 3), (18, 1)]);
    }

    #[test]
    fn wide_offsets_and_longer_headers_are_read() {
        let header = "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }\n";
        let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend((1i64 << 40).to_le_bytes());
        bytes.extend(7i64.to_le_bytes());
        assert_eq!(read_pairs(&bytes).unwrap(), [(1 << 40, 7)]);
    }

    #[test]
    fn anything_else_is_refused_with_what_was_expected() {
        let replaced = |from: &str, to: &str| {
            let at = golden().windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            let mut bytes = golden();
            bytes.splice(at..at + from.len(), to.bytes());
            read_pairs(&bytes).unwrap_err().0
        };
        assert!(replaced("<i4", "<f4").contains("int32"));
        assert!(replaced("False", "True ").contains("C order"));
        assert!(replaced("(2, 2)", "(2, 3)").contains("two columns"));
        assert!(replaced("(2, 2)", "(9, 2)").contains("9 rows"));
        assert!(read_pairs(&golden()[..40]).unwrap_err().0.contains("numpy"));
    }
}
