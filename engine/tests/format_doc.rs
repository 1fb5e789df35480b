//! FORMAT.md says what the code does: its tables against the constants, its example against the writer.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int8Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use common::parse;
use common::spec;
use mistique_engine::{
    Code, Effort, IfExists, IntermediateRecord, LogOptions, MemoryStorage, ModelKey, ModelSpec, RowPlan, Rows, Storage,
    Store, StoreOptions, UnitError, format,
};
use mistique_quantize::{
    BasePage, Encoding, PARAMS_VERSION, SharedDecoder, SharedEncoder, decode_against, decode_page,
};

const DOCUMENT: &str = include_str!("../../FORMAT.md");

type Row = Vec<String>;

/// Tables of the document: the last heading above, the names of the columns, the rows.
fn tables() -> Vec<(String, Row, Vec<Row>)> {
    let mut tables: Vec<(String, Row, Vec<Row>)> = Vec::new();
    let (mut heading, mut inside) = (String::new(), false);
    for line in DOCUMENT.lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches(['#', ' ']).to_string();
        }
        let Some(cells) = line.strip_prefix('|').and_then(|l| l.strip_suffix('|')) else {
            inside = false;
            continue;
        };
        let cells: Row = cells.split('|').map(|c| c.trim().to_string()).collect();
        match (inside, tables.last_mut()) {
            (true, Some((_, _, rows))) if !cells.iter().all(|c| c.chars().all(|c| c == '-')) => rows.push(cells),
            (true, _) => {}
            (false, _) => tables.push((heading.clone(), cells, Vec::new())),
        }
        inside = true;
    }
    tables
}

fn table(heading: &str, columns: &[&str]) -> Vec<Row> {
    let found = tables().into_iter().find(|(h, c, _)| h.starts_with(heading) && c == columns);
    found.unwrap_or_else(|| panic!("no table {columns:?} under {heading}")).2
}

#[test]
fn structures_have_their_sizes() {
    let sizes = [
        ("Partition header", format::PARTITION_HEADER_LEN),
        ("Footer entry", format::FOOTER_ENTRY_LEN),
        ("Partition trailer", format::PARTITION_TRAILER_LEN),
        ("Chunk header", format::CHUNK_HEADER_LEN),
        ("Page directory entry", format::PAGE_ENTRY_LEN),
        ("Unit error", UnitError::LEN_BYTES),
        ("Index header", format::INDEX_HEADER_LEN),
        ("Index directory entry", format::INDEX_ENTRY_LEN),
    ];
    let mut of_known_size = 0;
    for (heading, columns, rows) in tables() {
        if columns != ["Offset", "Size", "Type", "Name", "Meaning"] {
            continue;
        }
        let mut at = 0;
        for row in &rows {
            let (Ok(offset), Ok(size)) = (row[0].parse::<usize>(), row[1].parse::<usize>()) else { break };
            assert_eq!(offset, at, "{heading}: {row:?}");
            let of_type = [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8), ("f64", 8)];
            if let Some((_, bytes)) = of_type.iter().find(|(t, _)| *t == row[2]) {
                assert_eq!(size, *bytes, "{heading}: {row:?}");
            }
            at += size;
        }
        let Some((name, size)) = sizes.iter().find(|(name, _)| heading.starts_with(name)) else { continue };
        assert_eq!((heading, at), (format!("{name} ({size} bytes)"), *size));
        of_known_size += 1;
    }
    assert_eq!(of_known_size, sizes.len());
}

#[test]
fn magic_numbers_are_those_of_the_code() {
    let magic = |heading: &str| {
        let rows = table(heading, &["Offset", "Size", "Type", "Name", "Meaning"]);
        rows.into_iter().find(|r| r[3] == "magic").unwrap()[4].trim_matches('`').as_bytes().to_vec()
    };
    assert_eq!(magic("Partition header"), format::PARTITION_MAGIC);
    assert_eq!(magic("Partition trailer"), format::PARTITION_END);
    assert_eq!(magic("Chunk header"), format::CHUNK_MAGIC);
    assert_eq!(magic("Index header"), format::INDEX_MAGIC);
    let params = table("10.", &["Offset", "Size", "Type", "Name", "Meaning"]);
    assert_eq!(params[0][3..], ["version".to_string(), PARAMS_VERSION.to_string()]);
}

#[test]
fn limits_are_those_of_the_code() {
    let rows = table("13.", &["Name", "Value", "What it bounds"]);
    let documented: BTreeMap<String, u64> = rows.into_iter().map(|r| (r[0].clone(), r[1].parse().unwrap())).collect();
    let code = [
        ("MAX_BLOCK_ROWS", format::MAX_BLOCK_ROWS as u64),
        ("TABLE_BLOCK_ROWS", format::TABLE_BLOCK_ROWS as u64),
        ("MAX_ROW_VALUES", format::MAX_ROW_VALUES as u64),
        ("PARTITION_TARGET_BYTES", format::PARTITION_TARGET_BYTES),
        ("MIN_CHUNK_BYTES", format::MIN_CHUNK_BYTES as u64),
        ("MAX_CHUNK_BYTES", format::MAX_CHUNK_BYTES as u64),
        ("MAX_BLOCK_BYTES", format::MAX_BLOCK_BYTES as u64),
        ("PAGE_VALUES", format::PAGE_VALUES as u64),
        ("CHUNK_ALIGN", format::CHUNK_ALIGN),
        ("PAGE_ALIGN", format::PAGE_ALIGN as u64),
        ("CURRENT", format::CURRENT.into()),
        ("OLDEST_READABLE", format::OLDEST_READABLE.into()),
        ("CATALOG_VERSION", format::CATALOG_VERSION.unsigned_abs()),
        ("OLDEST_CATALOG_VERSION", format::OLDEST_CATALOG_VERSION.unsigned_abs()),
    ];
    assert_eq!(documented, code.map(|(n, v)| (n.to_string(), v)).into());
    let versions = table("15.", &["Version", "Why"]);
    assert_eq!(versions.last().unwrap()[0], format::CURRENT.to_string());
    let meta = &table("Table `meta`", &["Column", "Type", "Meaning"])[1][2];
    assert!(meta.contains(&format!("the version of these tables, {};", format::CATALOG_VERSION)), "{meta}");
}

#[test]
fn codes_and_encodings_are_those_of_the_code() {
    let mut rows = table("6.", &["Id", "Code", "Bytes in memory", "Bits"]).into_iter();
    for id in 0..=255u8 {
        let Ok(code) = Code::from_id(id) else { continue };
        let name = match code {
            Code::Kbit(k) => format!("kbit {k}"),
            Code::Int(w) => format!("int {w}"),
            other => format!("{other:?}").to_lowercase(),
        };
        let want = [id.to_string(), name, code.width().to_string(), code.bits().to_string()];
        assert_eq!(rows.next().unwrap(), want);
        assert_eq!(parse::width_and_bits(id), (code.width(), code.bits() as usize));
    }
    assert_eq!(rows.next(), None);
    let rows = table("7.", &["Id", "Encoding", "Bytes"]);
    let documented: Vec<[String; 2]> = rows.into_iter().map(|r| [r[0].clone(), r[1].clone()]).collect();
    let code = Encoding::ALL.map(|e| [(e as u8).to_string(), format!("{e:?}")]);
    assert_eq!(documented, code);
}

#[test]
fn the_catalogue_has_the_tables_and_columns() {
    let storage = MemoryStorage::new(None).unwrap();
    Store::on(Arc::new(storage.clone()), true, StoreOptions::default()).unwrap();
    let catalog = storage.open_catalog().unwrap();
    let list = |sql: &str| -> Vec<[String; 2]> {
        let mut statement = catalog.prepare(sql).unwrap();
        let rows = statement.query_map([], |r| Ok([r.get(0)?, r.get(1)?])).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let names = list("SELECT name, type FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
    for [name, _] in &names {
        let documented = table(&format!("Table `{name}`"), &["Column", "Type", "Meaning"]);
        let documented: Vec<[String; 2]> = documented.into_iter().map(|r| [r[0].clone(), r[1].clone()]).collect();
        assert_eq!(documented, list(&format!("SELECT name, type FROM pragma_table_info('{name}')")), "{name}");
    }
    let headings = tables().into_iter().filter(|(h, ..)| h.starts_with("Table `"));
    let mut documented: Vec<String> = headings.map(|(h, ..)| h[7..h.len() - 1].to_string()).collect();
    documented.dedup();
    assert_eq!(documented.len(), names.len());
    let sql = "SELECT name, tbl_name || ' (' || (SELECT group_concat(name, ', ') FROM pragma_index_info(i.name)) || ')'
               FROM sqlite_master i WHERE type = 'index' AND sql IS NOT NULL ORDER BY rowid";
    assert_eq!(table("Indexes", &["Index", "Columns"]), list(sql));
}

/// The bytes of a line of hexadecimal digits, up to what they are.
fn bytes_of(line: &str) -> Vec<u8> {
    let hex = line.split("  ").next().unwrap().split_whitespace();
    hex.map_while(|b| u8::from_str_radix(b, 16).ok().filter(|_| b.len() == 2)).collect()
}

#[test]
fn the_example_of_shared_tables_decodes() {
    let text = DOCUMENT.split("```shared\n").nth(1).and_then(|d| d.split("```").next()).unwrap();
    let (tables, page) = text.split_once("\n\n").unwrap();
    let bytes = |lines: &str| lines.lines().flat_map(bytes_of).collect::<Vec<u8>>();
    let (tables, page) = (bytes(tables), bytes(page));
    let want = [1, 1, 2, 2, 3, 2, 1, 1];
    assert_eq!((tables.len(), page.len()), (11, 8));
    assert_eq!(parse::decode(33, 7, &page, 8, 1, Some(&parse::Tables::read(&tables, 1))), want);
    let decoder = SharedDecoder::from_bytes(&tables).unwrap();
    let mut codes = [0; 8];
    decode_page(Code::Int(1), Encoding::Shared, &page, 8, 1, Some(&decoder), &mut codes).unwrap();
    assert_eq!(codes, want);
}

#[test]
fn the_example_of_a_page_against_another_decodes() {
    let text = DOCUMENT.split("```against\n").nth(1).and_then(|d| d.split("```").next()).unwrap();
    let page: Vec<u8> = text.lines().flat_map(bytes_against).collect();
    let words = |numbers: &[i32], width: usize| {
        numbers.iter().flat_map(|n| n.to_le_bytes()[..width].to_vec()).collect::<Vec<_>>()
    };
    let (codes, valid) = (words(&[3, 4, 5, 0], 2), vec![true, true, true, false]);
    let base = parse::Page {
        encoding: 0,
        form: 0,
        n_null: 1,
        min: 0.0,
        max: 5.0,
        n_nan: 0,
        n_zero: 1,
        codes: codes.clone(),
        valid,
    };
    let want = words(&[7, 9, 11, 13], 4);
    assert_eq!(parse::against(36, &page, &[true; 4], (34, &base)), want);
    let of_base = BasePage { code: Code::Int(2), codes: &codes, valid: Some(&[1, 1, 1, 0]) };
    let mut out = vec![0; 16];
    decode_against(Code::Int(4), &page, None, of_base, &mut out).unwrap();
    assert_eq!(out, want);
}

/// The bytes of a line, which ends with what they are.
fn bytes_against(line: &str) -> Vec<u8> {
    line[..24.min(line.len())].split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
}

/// The partition of section 16, as it is written today.
fn example() -> Vec<u8> {
    let storage = MemoryStorage::new(None).unwrap();
    let store = Store::on(Arc::new(storage.clone()), true, StoreOptions::default()).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &spec("t", &[3], "f32")).unwrap();
    log.append(handle, &[0, 1], vec![0.0f32, 1.5, 0.0, 0.0, -2.0, 0.0]).unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None, Some("a")]));
    let batch = RecordBatch::try_from_iter_with_nullable([("text", text, true)]).unwrap();
    let handle = log.table(model, "table", 1, &batch.schema()).unwrap();
    log.append_table(handle, &[0, 1, 2], &batch).unwrap();
    log.commit().unwrap();
    let file = storage.open("partitions/0000000001.mqp").unwrap();
    file.read(0..file.len_bytes()).unwrap().into_owned()
}

/// A line for every 16 bytes of a field, with what the field is.
fn hexdump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for field in parse::partition(bytes).fields {
        let same = bytes[field.at..field.at + field.len].iter().all(|b| *b == 0);
        if same && field.len > 16 {
            writeln!(out, "{:04x}  00 × {:<42} {}", field.at, field.len, field.text).unwrap();
            continue;
        }
        for (i, line) in bytes[field.at..field.at + field.len].chunks(16).enumerate() {
            let hex: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
            let text = if i == 0 { &field.text } else { "" };
            writeln!(out, "{}", format!("{:04x}  {:<47} {text}", field.at + 16 * i, hex.join(" ")).trim_end()).unwrap();
        }
    }
    out
}

fn documented_hexdump() -> &'static str {
    DOCUMENT.split("```hexdump\n").nth(1).and_then(|d| d.split("```").next()).unwrap()
}

#[test]
fn the_example_is_what_is_written() {
    let today = hexdump(&example());
    assert!(documented_hexdump() == today, "FORMAT.md, section 16, should be:\n{today}");
}

#[test]
fn the_example_decodes() {
    let mut bytes = Vec::new();
    for line in documented_hexdump().lines() {
        let (offset, rest) = line.split_once("  ").unwrap();
        assert_eq!(usize::from_str_radix(offset, 16).unwrap(), bytes.len(), "{line}");
        if let Some(run) = rest.strip_prefix("00 × ") {
            bytes.resize(bytes.len() + run.split(' ').next().unwrap().parse::<usize>().unwrap(), 0);
            continue;
        }
        let hex: String = rest.chars().take(47).collect();
        bytes.extend(hex.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()));
    }
    let partition = parse::partition(&bytes);
    assert_eq!((partition.version, partition.id), (format::CURRENT, 1));
    let [tensor, text] = &partition.chunks[..] else { panic!("not two chunks") };
    assert_eq!(tensor.f32s(), [0.0, 1.5, 0.0, 0.0, -2.0, 0.0]);
    assert_eq!((tensor.n_rows, tensor.n_cols, tensor.map_w), (2, 3, 1));
    let page = &tensor.pages[0];
    assert_eq!((page.min, page.max, page.n_nan, page.n_zero, page.n_null), (-2.0, 1.5, 0, 4, 0));
    assert_eq!(text.texts(), [Some("b".to_string()), None, Some("a".to_string())]);
    assert_eq!(text.pages[0].n_null, 1);
    for chunk in &partition.chunks {
        assert_eq!(chunk.hash, chunk.content_hash());
    }
}

#[test]
fn row_sets_and_chunk_lists_are_as_documented() {
    let storage = MemoryStorage::new(None).unwrap();
    let store = Store::on(Arc::new(storage.clone()), true, StoreOptions::default()).unwrap();
    for rows in [&[5u64, 6, 7][..], &[9, 4], &[1 << 40, 3], &[20, 22, 23, 24, 30]] {
        let mut log = store.logger(LogOptions::default()).unwrap();
        let key = ModelKey::new("p", format!("m{}", rows.len() as u64 + rows[0]));
        let model = log.model(&ModelSpec::raw(key), IfExists::Continue).unwrap();
        let handle = log.tensor(model, &spec("t", &[1], "f32")).unwrap();
        log.append(handle, rows, vec![rows[0] as f32; rows.len()]).unwrap();
        log.commit().unwrap();
    }
    let catalog = storage.open_catalog().unwrap();
    let sql = "SELECT b.intermediate_id, b.block_no, b.min_row, b.max_row, b.n_rows, b.row_set_id, b.chunks, b.checksum
               FROM row_blocks b";
    let mut statement = catalog.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(r) = rows.next().unwrap() {
        let mut bytes: Vec<u8> = (0..6).flat_map(|i| r.get::<_, i64>(i).unwrap().to_le_bytes()).collect();
        bytes.extend(r.get::<_, Vec<u8>>(6).unwrap());
        assert_eq!(r.get::<_, i64>(7).unwrap(), xxhash_rust::xxh3::xxh3_64(&bytes) as i64);
    }
    let sql = "SELECT s.rows, s.hash, b.chunks FROM row_blocks b JOIN row_sets s ON s.id = b.row_set_id
               ORDER BY b.intermediate_id";
    let mut statement = catalog.prepare(sql).unwrap();
    let found: Vec<(Vec<u8>, Vec<u8>, Vec<u8>)> =
        statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).unwrap().map(Result::unwrap).collect();
    let numbers = |tag: u8, bytes: &[&[u8]]| [&[tag][..], &bytes.concat()].concat();
    let want = [
        numbers(0, &[&5u64.to_le_bytes(), &8u64.to_le_bytes()]),
        numbers(1, &[&9u32.to_le_bytes(), &4u32.to_le_bytes()]),
        numbers(2, &[&(1u64 << 40).to_le_bytes(), &3u64.to_le_bytes()]),
        numbers(3, &[&20u64.to_le_bytes(), &[0b0001_1101, 0b100]]),
    ];
    for (i, (rows, hash, chunks)) in found.iter().enumerate() {
        assert_eq!(*rows, want[i]);
        assert_eq!(hash[..], xxhash_rust::xxh3::xxh3_128(rows).to_le_bytes());
        assert_eq!(chunks[..], [2 * (i as u8 + 1), 0]);
    }
    assert_eq!(found.len(), 4);
}

/// What the second reader finds of an intermediate: by RowBlock, its rows and the chunks of its groups.
fn blocks_of(storage: &MemoryStorage, name: &str) -> Vec<(Vec<u64>, Vec<parse::Chunk>)> {
    let catalog = storage.open_catalog().unwrap();
    let sql = "SELECT s.rows, b.chunks FROM row_blocks b JOIN row_sets s ON s.id = b.row_set_id
               JOIN intermediates i ON i.id = b.intermediate_id WHERE i.name = ?1 ORDER BY b.min_row";
    let mut statement = catalog.prepare(sql).unwrap();
    let blocks: Vec<(Vec<u8>, Vec<u8>)> =
        statement.query_map([name], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect();
    let chunk = |id: i64| {
        let sql = "SELECT partition_id, offset, len_bytes, hash FROM chunks WHERE id = ?1";
        let place = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?));
        let (partition, at, len, hash): (i64, usize, usize, [u8; 16]) = catalog.query_row(sql, [id], place).unwrap();
        let file = storage.open(&format!("partitions/{partition:010}.mqp")).unwrap();
        let bytes = file.read(0..file.len_bytes()).unwrap().into_owned();
        let mut chunks = parse::partition(&bytes).chunks;
        let chunk = chunks.swap_remove(chunks.iter().position(|c| c.at == at).unwrap());
        assert_eq!((chunk.len, chunk.hash, chunk.content_hash()), (len, u128::from_le_bytes(hash), chunk.hash));
        chunk
    };
    let rows = |bytes: &[u8]| match bytes[0] {
        0 => {
            let ends = bytes[1..].as_chunks::<8>().0;
            (u64::from_le_bytes(ends[0])..u64::from_le_bytes(ends[1])).collect()
        }
        1 => bytes[1..].as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b).into()).collect(),
        2 => bytes[1..].as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect(),
        3 => {
            let first = u64::from_le_bytes(bytes[1..9].try_into().unwrap());
            let bits = &bytes[9..];
            (0..8 * bits.len()).filter(|i| bits[i / 8] >> (i % 8) & 1 == 1).map(|i| first + i as u64).collect()
        }
        tag => panic!("rows of tag {tag}"),
    };
    blocks.iter().map(|(r, c)| (rows(r), parse::chunk_numbers(c).into_iter().map(chunk).collect())).collect()
}

#[test]
fn compacted_tensors_decode_as_documented() {
    let storage = MemoryStorage::new(None).unwrap();
    let store = Store::on(Arc::new(storage.clone()), true, StoreOptions::default()).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let rows: Vec<u64> = (0..150).rev().collect();
    // By name: the scheme, the id of its code, and whether its pages have to share tables.
    let tensors = [
        ("f16", 1, true),
        ("bf16", 2, true),
        ("f32", 3, true),
        ("kbit(8)", 24, true),
        ("kbit(3)", 19, true),
        ("threshold(0.9)", 0, true),
        ("pool(2)+f16", 1, true),
        ("f64", 4, false),
    ];
    for (scheme, ..) in tensors {
        // Maps of many pages, and vectors of which one page has many rows.
        for (kind, shape) in [("maps", &[3, 13, 14][..]), ("vectors", &[96])] {
            let n: usize = shape.iter().product();
            let (units, h, w) = if let [u, h, w] = *shape { (u, h, w) } else { (n, 1, 1) };
            let values = common::relu_maps(rows.len(), units, h, w, 11 + n as u64);
            let of = spec(&format!("{kind} {scheme}"), shape, scheme);
            if scheme == "f64" {
                let handle = log.tensor(model, &of.of(Code::F64)).unwrap();
                log.append(handle, &rows, values.iter().map(|v| f64::from(*v).sqrt()).collect::<Vec<f64>>()).unwrap();
            } else {
                let handle = log.tensor(model, &of).unwrap();
                log.append(handle, &rows, values).unwrap();
            }
        }
    }
    log.commit().unwrap();
    drop(log);
    store.compact(&mut |_, _| {}).unwrap();
    for (scheme, code, shares) in tensors {
        let mut encodings = std::collections::BTreeSet::new();
        for kind in ["maps", "vectors"] {
            let name = format!("{kind} {scheme}");
            let record = store.intermediate(&common::key("m", &name)).unwrap();
            let n_cols = record.tensor().unwrap().layout.stored_values();
            let plan = store.plan_rows(&record, &Rows::All).unwrap();
            let (codes, values) = (store.read_codes(&record, &plan).unwrap(), values_of(&store, &record, &plan));
            let sql = "SELECT params FROM intermediates WHERE name = ?1";
            let catalog = storage.open_catalog().unwrap();
            let params: Option<Vec<u8>> = catalog.query_row(sql, [&name], |r| r.get(0)).unwrap();
            let mut found: BTreeMap<u64, (Vec<u8>, Vec<f32>)> = BTreeMap::new();
            for (rows, chunks) in blocks_of(&storage, &name) {
                for chunk in &chunks {
                    assert_eq!((chunk.code, chunk.n_rows), (code, rows.len()), "{name}");
                    encodings.extend(chunk.pages.iter().map(|p| p.encoding));
                    assert_eq!(chunk.tables.is_empty(), chunk.pages.iter().all(|p| p.encoding != 7), "{name}");
                    let codes = chunk.codes();
                    let row_len = codes.len() / rows.len();
                    for (row, codes) in rows.iter().zip(codes.chunks_exact(row_len)) {
                        let row = found.entry(*row).or_default();
                        row.0.extend_from_slice(codes);
                        row.1.extend(decoded(code, codes, params.as_deref()));
                    }
                }
            }
            assert!(found.keys().copied().eq(plan.rows.iter()), "{name}");
            assert!(found.values().all(|r| r.1.len() == n_cols), "{name}");
            assert!(found.values().flat_map(|r| r.0.iter()).eq(&codes), "{name}: other codes");
            let bits = |v: &f32| v.to_bits();
            assert!(found.values().flat_map(|r| r.1.iter()).map(bits).eq(values.iter().map(bits)), "{name}: values");
        }
        assert!(encodings.contains(&7) || !shares, "{scheme}: {encodings:?}");
    }
}

#[test]
fn tables_that_no_page_needs_are_left_out() {
    let storage = MemoryStorage::new(None).unwrap();
    let store = Store::on(Arc::new(storage.clone()), true, StoreOptions::default()).unwrap();
    let mut log = store.logger(LogOptions::default().with_effort(Effort::Small)).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    // Repetition, of which zstd makes more than any code of single bytes.
    let values: Vec<f64> = (0..3 * 8192).map(|i| f64::from(i % 37 + 2).sqrt()).collect();
    let codes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    assert!(SharedEncoder::train(Code::F64, &codes, 8192, 128).is_some(), "sharing seems to pay");
    let of = spec("t", &[1, 64, 128], "f64").of(Code::F64).with_scheme("f64".parse().unwrap());
    let handle = log.tensor(model, &of).unwrap();
    log.append(handle, &[0, 1, 2], values).unwrap();
    log.commit().unwrap();
    drop(log);
    let blocks = blocks_of(&storage, "t");
    let chunks: Vec<&parse::Chunk> = blocks.iter().flat_map(|(_, chunks)| chunks).collect();
    let [chunk] = chunks[..] else { panic!("not one chunk") };
    assert_eq!((chunk.map_w, chunk.pages.len(), chunk.flags, chunk.tables.len()), (128, 3, 0, 0));
    assert!(chunk.pages.iter().all(|p| [5, 6].contains(&p.encoding)));
}

fn values_of(store: &Store, record: &IntermediateRecord, plan: &RowPlan) -> Vec<f32> {
    let n = record.tensor().unwrap().layout.stored_values();
    let mut out = vec![f32::NAN; plan.n_rows() * n];
    store.read_f32(record, plan, std::slice::from_ref(&(0..n)), &mut out).unwrap();
    out
}

/// Codes as values, by sections 9 and 10.
fn decoded(code: u8, codes: &[u8], params: Option<&[u8]>) -> Vec<f32> {
    match code {
        0 => codes.iter().map(|c| f32::from(*c)).collect(),
        1 => codes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        2 => codes.as_chunks::<2>().0.iter().map(|[a, b]| f32::from_le_bytes([0, 0, *a, *b])).collect(),
        3 => codes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        4 => codes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        _ => {
            // One codebook: version, kind, bits, count; n_codes; edges; representatives.
            let params = params.unwrap();
            assert_eq!(params[..7], [1, 1, code - 16, 1, 0, 0, 0]);
            let n = usize::from(u16::from_le_bytes([params[7], params[8]]));
            let floats: Vec<f32> = params[9..].as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            assert_eq!(floats.len(), 2 * n - 1);
            codes.iter().map(|c| floats[n - 1 + usize::from(*c).min(n - 1)]).collect()
        }
    }
}

#[test]
fn compacted_tables_decode_as_documented() {
    let storage = MemoryStorage::new(None).unwrap();
    let store = Store::on(Arc::new(storage.clone()), true, StoreOptions::default()).unwrap();
    let mut log = store.logger(LogOptions::default()).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let rows: Vec<u64> = (0..2500).collect();
    let batch = common::table(&rows);
    let small = Int8Array::from_iter(rows.iter().map(|r| (r % 7 != 0).then_some((r % 11) as i8 - 5)));
    let long = Int64Array::from_iter(rows.iter().map(|r| Some((*r as i64 - 900) << 20)));
    let columns = [("small", Arc::new(small) as ArrayRef), ("long", Arc::new(long))];
    let schema = batch.schema();
    let named = schema.fields().iter().zip(batch.columns());
    let named = named.map(|(f, c)| (f.name().as_str(), Arc::clone(c)));
    let columns: Vec<(&str, ArrayRef)> = named.chain(columns).collect();
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let handle = log.table(model, "table", 1, &batch.schema()).unwrap();
    log.append_table(handle, &rows, &batch).unwrap();
    log.commit().unwrap();
    drop(log);
    store.compact(&mut |_, _| {}).unwrap();
    let (_, want) = common::read_table(&store, &common::key("m", "table"), &Rows::All).unwrap();
    assert!(want == batch);
    let mut found = vec![Vec::new(); want.num_columns()];
    for (_, chunks) in blocks_of(&storage, "table") {
        assert_eq!(chunks.iter().map(|c| c.code).collect::<Vec<_>>(), [34, 36, 4, 0, 33, 40]);
        for (column, chunk) in found.iter_mut().zip(&chunks) {
            if chunk.flags & 2 != 0 {
                column.extend(chunk.texts().into_iter().map(|t| t.unwrap_or("null".into())));
                continue;
            }
            let (width, _) = parse::width_and_bits(chunk.code);
            let text = |c: &[u8]| {
                let (low, sign) = (c.iter().rev().fold(0i64, |v, b| v << 8 | i64::from(*b)), 64 - 8 * width as u32);
                match chunk.code {
                    0 => (low == 1).to_string(),
                    4 => f64::from_bits(low as u64).to_string(),
                    _ => (low << sign >> sign).to_string(),
                }
            };
            let codes = chunk.codes();
            let texts = codes.chunks_exact(width).zip(chunk.valid());
            column.extend(texts.map(|(c, valid)| if valid { text(c) } else { "null".into() }));
        }
    }
    for (column, found) in want.columns().iter().zip(found) {
        let texts: Vec<String> = match column.data_type() {
            DataType::Float64 => column
                .as_primitive::<Float64Type>()
                .iter()
                .map(|v| v.map_or("null".into(), |v| v.to_string()))
                .collect(),
            _ => {
                let texts = cast(column, &DataType::Utf8).unwrap();
                texts.as_string::<i32>().iter().map(|t| t.unwrap_or("null").to_string()).collect()
            }
        };
        assert!(texts == found, "{:?}", column.data_type());
    }
}
