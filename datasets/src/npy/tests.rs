use super::*;

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
}

fn read(bytes: &[u8]) -> Result<NpyArray, DatasetError> {
    read_npy_from(&mut &bytes[..], "x.npy")
}

fn header(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}   \n")
}

#[test]
fn round_trip_through_npyz() {
    let values: Vec<f32> = (0..24).map(|i| i as f32 * 0.5).collect();
    let mut bytes = Vec::new();
    write_npy(&mut bytes, &[2, 3, 4], &values).unwrap();
    let theirs = npyz::NpyFile::new(&bytes[..]).unwrap();
    assert_eq!(theirs.shape(), [2, 3, 4]);
    assert_eq!(theirs.into_vec::<f32>().unwrap(), values);
    assert_eq!(read(&bytes).unwrap(), NpyArray { shape: vec![2, 3, 4], data: NpyData::F32(values.clone()) });
    assert_eq!(write_npy(Vec::new(), &[5], &values).unwrap_err().kind(), ErrorKind::InvalidInput);
    let mut empty = Vec::new();
    write_npy(&mut empty, &[0, 7], &[]).unwrap();
    assert_eq!(read(&empty).unwrap().shape, [0, 7]);
}

#[test]
fn fortran_order_is_transposed() {
    let order = npyz::Order::Fortran;
    let stored: Vec<i64> = (0..24).collect();
    let mut bytes = Vec::new();
    let mut npy =
        npyz::WriteOptions::new().default_dtype().shape(&[2, 3, 4]).order(order).writer(&mut bytes).begin_nd().unwrap();
    npy.extend(&stored).unwrap();
    npy.finish().unwrap();
    let mut expected = Vec::new();
    for (i, j, k) in (0..2).flat_map(|i| (0..3).flat_map(move |j| (0..4).map(move |k| (i, j, k)))) {
        expected.push(i + 2 * j + 6 * k);
    }
    let array = read(&bytes).unwrap();
    assert_eq!((array.shape, array.data), (vec![2, 3, 4], NpyData::I64(expected)));
    assert_eq!(read(&file(&header("<f4", "True", "(0, 3)"), &[])).unwrap().shape, [0, 3]);
}

#[test]
fn element_types() {
    let one = |descr: &str, data: &[u8]| read(&file(&header(descr, "False", "(1,)"), data)).unwrap().data;
    assert_eq!(one("<f2", &[0x00, 0x3e]), NpyData::F16(vec![0x3e00]));
    assert_eq!(one(">f2", &[0x3e, 0x00]), NpyData::F16(vec![0x3e00]));
    assert_eq!(one(">f8", &1.5f64.to_be_bytes()), NpyData::F64(vec![1.5]));
    assert_eq!(one("<i2", &(-2i16).to_le_bytes()), NpyData::I16(vec![-2]));
    assert_eq!(one(">u4", &[1, 2, 3, 4]), NpyData::U32(vec![0x0102_0304]));
    assert_eq!(one("<i4", &(-7i32).to_le_bytes()).dtype(), "int32");
    assert_eq!(one("|u1", &[200]), NpyData::U8(vec![200]));
    assert_eq!(one("|i1", &[200]), NpyData::I8(vec![-56]));
    assert_eq!(one("|b1", &[1]), NpyData::Bool(vec![true]));
    assert_eq!(read(&file(&header("<u8", "False", "()"), &9u64.to_le_bytes())).unwrap().to_f32(), [9.0]);
}

#[test]
fn halves_are_exact() {
    for (bits, value) in [
        (0x0000, 0.0),
        (0x3c00, 1.0),
        (0xc000, -2.0),
        (0x7bff, 65504.0),
        (0x0001, 2f32.powi(-24)),
        (0x03ff, 1023.0 * 2f32.powi(-24)),
        (0x0400, 2f32.powi(-14)),
        (0x3555, 0.333_251_95),
        (0xfc00, f32::NEG_INFINITY),
    ] {
        assert_eq!(half_to_f32(bits), value, "{bits:#06x}");
    }
    assert!(half_to_f32(0x8000).is_sign_negative() && half_to_f32(0x7e00).is_nan());
}

#[test]
fn truncated_and_foreign_files() {
    let mut whole = Vec::new();
    write_npy(&mut whole, &[3], &[1.0, 2.0, 3.0]).unwrap();
    let data_start = whole.len() - 12;
    for len in 0..whole.len() {
        let error = read(&whole[..len]).unwrap_err();
        match len < data_start {
            true => assert!(matches!(error, DatasetError::WrongFormat { .. }), "{len}: {error}"),
            false => assert!(
                matches!(error, DatasetError::WrongLength { found_bytes, .. } if found_bytes == (len - data_start) as u64)
            ),
        }
    }
    let longer = [&whole[..], &[0; 5]].concat();
    assert!(matches!(read(&longer), Err(DatasetError::WrongLength { found_bytes: 17, .. })));
    for (bytes, part) in [
        (b"PK\x03\x04 a zip archive".to_vec(), "numpy's magic"),
        ([MAGIC, &[9, 0, 0, 0]].concat(), "format version"),
        ([MAGIC, &[2, 0, 0xff, 0xff, 0xff, 0xff]].concat(), "longer than 64 KiB"),
        (file("{'descr': '<f4'}", &[]), "no 'fortran_order'"),
        (file(&header("<f4", "maybe", "(1,)"), &[]), "neither True nor False"),
        (file(&header("<f4", "False", "[1]"), &[]), "not a tuple"),
        (file(&header("<f4", "False", "(-1,)"), &[]), "'-1' is not a number"),
        (file(&header("<f4", "False", "(4294967296, 4294967296)"), &[]), "impossible shape"),
        (file(&header("<f4", "False", "(1000000000000,)"), &[]), "0 bytes, expected 4000000000000"),
        (file(&header("<c8", "False", "(1,)"), &[0; 8]), "element type <c8 is not supported"),
        (file(&header("|O", "False", "(1,)"), &[0; 8]), "element type |O is not supported"),
        (file(&header("", "False", "(1,)"), &[0; 8]), "is not supported"),
        (
            file("{'descr': [('a', '<f4'), ('b', '<i4')], 'fortran_order': False, 'shape': (1,)}", &[]),
            "record type [('a', '<f4'), ('b', '<i4')] is not supported; elements are of one float, integer or bool type: \
             save each field by itself",
        ),
        // Fields of fields, and with the names of the header's own entries.
        (
            file(
                "{'descr': [('descr', [('shape', '<f4', (2,))]), (']', '|b1')], 'fortran_order': True, 'shape': ()}",
                &[],
            ),
            "record type [('descr', [('shape', '<f4', (2,))]), (']', '|b1')] is not supported",
        ),
        (
            file(&format!("{{'descr': [{}], 'fortran_order': True, 'shape': ()}}", "('ä', '<f4'), ".repeat(40)), &[]),
            "('ä… is not supported",
        ),
    ] {
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("x.npy"), "{part}: {error}");
    }
}
