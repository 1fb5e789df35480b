//! Unpacking of the regular files in a gzipped tar archive.

use std::fs::{self, File};
use std::io::{Read, copy};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::DatasetError;
use crate::files::{io_error, open_file};

const BLOCK_LEN_BYTES: usize = 512;

/// Writes every regular file of `archive` into `dir` under the last part of its name, and returns their paths.
///
/// Directories, links and devices are passed over, so that nothing can be written outside of `dir`. A file appears under
/// its name only when it is complete.
/// Errors: `WrongFormat` for a damaged or foreign archive, `WrongLength` for a truncated one.
pub(crate) fn unpack(archive: &Path, dir: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let file = open_file(archive, "a .tar.gz archive", "fetch it again")?;
    let mut reader = MultiGzDecoder::new(std::io::BufReader::with_capacity(1 << 16, file));
    let wrong = |why: String| DatasetError::WrongFormat {
        path: archive.to_owned(),
        expected: "a .tar.gz archive",
        why,
        hint: "remove it and fetch it again",
    };
    let truncated =
        |found_bytes, expected| DatasetError::WrongLength { path: archive.to_owned(), found_bytes, expected };
    let (mut written, mut position) = (Vec::new(), 0u64);
    loop {
        let mut header = Vec::new();
        let n = reader.by_ref().take(BLOCK_LEN_BYTES as u64).read_to_end(&mut header);
        let n = n.map_err(|error| wrong(error.to_string()))?;
        position += n as u64;
        if n < BLOCK_LEN_BYTES {
            return Err(truncated(position, "two blocks of zeros at the end".to_owned()));
        }
        if header.iter().all(|&byte| byte == 0) {
            return Ok(written);
        }
        let entry =
            Entry::parse(&header).ok_or_else(|| wrong(format!("no tar header at byte {}", position - n as u64)))?;
        let padded = entry.len_bytes.next_multiple_of(BLOCK_LEN_BYTES as u64);
        let mut content = reader.by_ref().take(entry.len_bytes);
        let found = match &entry.file_name {
            Some(name) => {
                let (path, part) = (dir.join(name), dir.join(format!("{name}.part")));
                let mut file = File::create(&part).map_err(io_error(&part, "create"))?;
                let found = copy(&mut content, &mut file).map_err(io_error(&part, "unpack"))?;
                if found == entry.len_bytes {
                    file.sync_all().map_err(io_error(&part, "write"))?;
                    fs::rename(&part, &path).map_err(io_error(&path, "rename"))?;
                    written.push(path);
                } else {
                    fs::remove_file(&part).map_err(io_error(&part, "remove"))?;
                }
                found
            }
            None => copy(&mut content, &mut std::io::sink()).map_err(|error| wrong(error.to_string()))?,
        };
        let padding = copy(&mut reader.by_ref().take(padded - entry.len_bytes), &mut std::io::sink());
        let found = found + padding.map_err(|error| wrong(error.to_string()))?;
        position += found;
        if found < padded {
            return Err(truncated(position, format!("{} more of an entry", padded - found)));
        }
    }
}

struct Entry {
    /// Last part of the name, for regular files with an ordinary one.
    file_name: Option<String>,
    len_bytes: u64,
}

impl Entry {
    /// The entry that a header block describes, if its checksum is right.
    fn parse(header: &[u8]) -> Option<Entry> {
        let octal = |field: &[u8]| {
            let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
            u64::from_str_radix(text, 8).ok()
        };
        // The checksum is taken with its own field read as spaces.
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(i, &byte)| u64::from(if (148..156).contains(&i) { b' ' } else { byte }))
            .sum();
        if octal(header.get(148..156)?)? != sum {
            return None;
        }
        let name = header.get(..100)?.split(|&byte| byte == 0).next().and_then(|name| std::str::from_utf8(name).ok());
        let name = name.and_then(|name| name.rsplit(['/', '\\']).next());
        let regular = matches!(header.get(156)?, b'0' | 0);
        let plain = name.filter(|name| regular && !name.is_empty() && !name.starts_with('.') && !name.contains(':'));
        // 8 GiB are the most that twelve octal digits can say; no overflow when it is padded.
        Some(Entry { file_name: plain.map(str::to_owned), len_bytes: octal(header.get(124..136)?)? })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn header(name: &str, kind: u8, len: usize) -> Vec<u8> {
        let mut block = vec![0; BLOCK_LEN_BYTES];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{len:011o}").as_bytes());
        block[148..156].fill(b' ');
        block[156] = kind;
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    /// A gzipped archive of entries given as name, kind and content.
    fn archive(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, kind, content) in entries {
            tar.extend(header(name, *kind, content.len()));
            tar.extend_from_slice(content);
            tar.resize(tar.len().next_multiple_of(BLOCK_LEN_BYTES), 0);
        }
        tar.resize(tar.len() + 2 * BLOCK_LEN_BYTES, 0);
        gz(&tar)
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn regular_files_only_and_only_here() {
        let outside = tempfile::tempdir().unwrap();
        let dir = outside.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let path = dir.join("a.tar.gz");
        let entries: [(&str, u8, &[u8]); 7] = [
            ("batches/", b'5', b""),
            ("batches/one.bin", b'0', &[7; 600]),
            ("../../evil.bin", b'0', b"evil"),
            ("/etc/absolute.bin", 0, b"absolute"),
            ("batches/..", b'0', b"dots"),
            ("link.bin", b'2', b""),
            ("empty.bin", b'0', b""),
        ];
        fs::write(&path, archive(&entries)).unwrap();
        let written = unpack(&path, &dir).unwrap();
        assert_eq!(written, ["one.bin", "evil.bin", "absolute.bin", "empty.bin"].map(|name| dir.join(name)));
        assert_eq!(fs::read(dir.join("one.bin")).unwrap(), [7; 600]);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 5, "no .part is left");
    }

    #[test]
    fn truncated_and_foreign_archives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let whole = header("one.bin", b'0', 600);
        for (content, part) in [
            (gz(&whole), "1024 more of an entry"),
            (gz(&whole[..100]), "two blocks of zeros"),
            (gz(&[&whole[..], &[1; 1024]].concat()), "two blocks of zeros"),
            (gz(&[1; 1024]), "no tar header at byte 0"),
            (b"no gzip at all".to_vec(), "not a .tar.gz archive"),
        ] {
            fs::write(&path, content).unwrap();
            let error = unpack(&path, dir.path()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
