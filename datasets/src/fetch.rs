//! Downloading data sets: resumable, checked, and plain about being offline.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::http::{Response, StatusCode, Uri, header};

use crate::files::{io_error, open_file};
use crate::{DatasetError, KNOWN, known, tar};

/// Downloads the data set `name` (see [`KNOWN`]) into `dir`, unpacks archives there, and returns the paths of all files.
///
/// A file is downloaded to `FILE.part` and gets its name once its SHA-256 is right. A partial file is resumed; files that
/// are there already are checked and kept. `progress` is told the bytes on disk and the bytes of all files together.
///
/// Errors: `UnknownDownload`; `Offline`, `Http` or `Interrupted` for the network, where `Interrupted` keeps what arrived;
/// `Digest` for a file that is not the published one, whose partial file is removed; `Io`.
pub fn fetch(
    name: &str,
    dir: impl AsRef<Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<PathBuf>, DatasetError> {
    let dir = dir.as_ref();
    let known = known(name).ok_or_else(|| DatasetError::UnknownDownload {
        name: name.to_owned(),
        known: KNOWN.iter().map(|known| known.name).collect::<Vec<_>>().join(", "),
    })?;
    let total = known.files.iter().map(|file| file.len_bytes).sum();
    let (mut paths, mut before) = (Vec::new(), 0);
    for file in known.files {
        let download =
            Download { url: file.url, file: file.file_name(), sha256: file.sha256, len_bytes: file.len_bytes, dir };
        let path = download.run(&mut |done| progress(before + done, total))?;
        before += file.len_bytes;
        if file.file_name().ends_with(".tar.gz") {
            paths.extend(tar::unpack(&path, dir)?);
        }
        paths.push(path);
    }
    Ok(paths)
}

/// One file to download.
struct Download<'a> {
    url: &'a str,
    file: &'a str,
    sha256: &'a str,
    len_bytes: u64,
    dir: &'a Path,
}

impl Download<'_> {
    /// Path of the complete file, downloaded if it is not there.
    fn run(&self, progress: &mut dyn FnMut(u64)) -> Result<PathBuf, DatasetError> {
        fs::create_dir_all(self.dir).map_err(io_error(self.dir, "create"))?;
        let (path, part) = (self.dir.join(self.file), self.dir.join(format!("{}.part", self.file)));
        if path.exists() {
            self.check(&path, "it was there before and is kept; move it away and fetch again")?;
            progress(self.len_bytes);
            return Ok(path);
        }
        let have = fs::metadata(&part).map_or(0, |metadata| metadata.len());
        if have < self.len_bytes {
            self.download(&part, have, progress)?;
        }
        let checked = self.check(
            &part,
            "the download was removed; fetch again, and if it stays wrong the publisher changed the file",
        );
        if matches!(checked, Err(DatasetError::Digest { .. })) {
            fs::remove_file(&part).map_err(io_error(&part, "remove"))?;
        }
        checked?;
        fs::rename(&part, &path).map_err(io_error(&path, "rename"))?;
        Ok(path)
    }

    /// Downloads what is missing after the first `have` bytes of `part`.
    fn download(&self, part: &Path, have: u64, progress: &mut dyn FnMut(u64)) -> Result<(), DatasetError> {
        let response = self.request(have)?;
        let status = response.status();
        // A server without ranges answers with the whole file: begin anew.
        let mut done = match status {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, have) => have,
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT => return Err(self.http_error("the server sent another range than asked for")),
            _ => return Err(self.http_error(format!("the server answered {status}"))),
        };
        let mut options = OpenOptions::new();
        let mut file = match done {
            0 => options.write(true).create(true).truncate(true).open(part),
            _ => options.append(true).open(part),
        }
        .map_err(io_error(part, "open"))?;
        let mut reader = response.into_body().into_reader();
        let mut block = vec![0; 1 << 16];
        progress(done);
        loop {
            let n = match reader.read(&mut block) {
                Ok(0) if done < self.len_bytes => {
                    return Err(self.interrupted(part, done, "the server closed the connection".to_owned()));
                }
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => return Err(self.interrupted(part, done, error.to_string())),
            };
            file.write_all(&block[..n]).map_err(io_error(part, "write"))?;
            done += n as u64;
            progress(done.min(self.len_bytes));
            if done > self.len_bytes {
                // Longer than published: stop here, the digest tells the rest.
                break;
            }
        }
        file.sync_all().map_err(io_error(part, "write"))
    }

    fn request(&self, have: u64) -> Result<Response<ureq::Body>, DatasetError> {
        let host = self.url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("mistique/", env!("CARGO_PKG_VERSION")))
            // The published digests are of the files as stored.
            .accept_encoding("identity")
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)));
        if host == "localhost" || host.starts_with("127.") {
            config = config.proxy(None);
        }
        let agent: ureq::Agent = config.build().into();
        let mut request = agent.get(self.url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        request.call().map_err(|error| match error {
            ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Io(_)
            | ureq::Error::Timeout(_) => DatasetError::Offline {
                host,
                why: error.to_string(),
                url: self.url.to_owned(),
                file: self.file.to_owned(),
                dir: self.dir.to_owned(),
            },
            other => self.http_error(other.to_string()),
        })
    }

    fn check(&self, path: &Path, hint: &'static str) -> Result<(), DatasetError> {
        let found = sha256_of(path)?;
        if found == self.sha256 {
            return Ok(());
        }
        Err(DatasetError::Digest { path: path.to_owned(), expected: self.sha256.to_owned(), found, hint })
    }

    fn http_error(&self, why: impl Into<String>) -> DatasetError {
        let (url, file, dir) = (self.url.to_owned(), self.file.to_owned(), self.dir.to_owned());
        DatasetError::Http { url, why: why.into(), file, dir }
    }

    fn interrupted(&self, part: &Path, done_bytes: u64, why: String) -> DatasetError {
        let (url, total_bytes, part) = (self.url.to_owned(), self.len_bytes, part.to_owned());
        DatasetError::Interrupted { url, done_bytes, total_bytes, why, part }
    }
}

/// Whether a partial answer begins at byte `start`.
fn starts_at(response: &Response<ureq::Body>, start: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {start}-")))
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String, DatasetError> {
    let mut file: File = open_file(path, "a downloaded file", "fetch it again")?;
    let (mut hash, mut block) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut block).map_err(io_error(path, "read"))? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hash.update(&block[..n]),
        }
    }
}

#[cfg(test)]
mod tests;
