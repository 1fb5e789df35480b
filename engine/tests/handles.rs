//! Several handles and processes on one store: who sees what when, and who may write.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{batch, damage, key, read_table, read_tensor, spec, strays, table, visible};
use mistique_engine::{
    EngineError, FileInfo, IfExists, LocalStorage, LogOptions, Logger, ModelKey, ModelSpec, ReadFile, Result, Rows,
    Storage, Store, StoreOptions, WriteFile,
};

fn log(store: &Store, name: &str, rows: &[u64]) -> Logger {
    let mut log = store.logger(LogOptions::default().with_partition_bytes(4096)).unwrap();
    let model = log.model(&ModelSpec::raw(ModelKey::new("p", name)), IfExists::Continue).unwrap();
    let handle = log.tensor(model, &spec("t", &[4, 6, 6], "f32")).unwrap();
    log.append(handle, rows, batch(rows, 144)).unwrap();
    let handle = log.table(model, "table", 1, &table(&[]).schema()).unwrap();
    log.append_table(handle, rows, &table(rows)).unwrap();
    log
}

fn check(store: &Store, name: &str, rows: &[u64]) {
    let want = (rows.to_vec(), batch(rows, 144));
    assert!(read_tensor(store, &key(name, "t"), &Rows::List(rows.to_vec())).unwrap() == want);
    let got = read_table(store, &key(name, "table"), &Rows::List(rows.to_vec())).unwrap();
    assert!(got == (rows.to_vec(), table(rows)));
}

#[test]
fn what_is_held_in_memory_outlives_the_commits_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Store::open_or_create(dir.path()).unwrap();
    let reader = Store::open(dir.path()).unwrap();
    let rows: Vec<u64> = (0..300).collect();
    log(&writer, "m", &rows).commit().unwrap();
    check(&reader, "m", &rows);
    let as_logged = reader.pool_stats();
    // Pages as they are logged decode as fast as they would be copied; compacted ones are held.
    writer.compact(&mut |_, _| {}).unwrap();
    check(&reader, "m", &rows);
    let first = reader.pool_stats();
    assert!(first.held_bytes > as_logged.held_bytes, "{as_logged:?} {first:?}");
    log(&writer, "other", &rows).commit().unwrap();
    let record = reader.intermediate(&key("m", "t")).unwrap();
    let plan = reader.plan_rows(&record, &Rows::All).unwrap();
    let mut out = vec![0.0; 300 * 144];
    reader.read_f32(&record, &plan, std::slice::from_ref(&(0..144)), &mut out).unwrap();
    assert_eq!(out, batch(&rows, 144));
    let again = reader.pool_stats();
    assert!(again.misses == first.misses && again.hits > first.hits, "{first:?} {again:?}");
}

#[test]
fn a_reader_sees_commits_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Store::open_or_create(dir.path()).unwrap();
    let reader = Store::open(dir.path()).unwrap();
    let rows: Vec<u64> = (0..300).collect();
    let mut first = log(&writer, "m", &rows);
    assert!(reader.models().unwrap().is_empty());
    assert!(matches!(reader.intermediate(&key("m", "t")), Err(EngineError::NotFound { .. })));
    first.commit().unwrap();
    check(&reader, "m", &rows);
    let model = first.model(&ModelSpec::raw(ModelKey::new("p", "m")), IfExists::Continue).unwrap();
    let handle = first.tensor(model, &spec("t", &[4, 6, 6], "f32")).unwrap();
    first.append(handle, &[900, 300], batch(&[900, 300], 144)).unwrap();
    assert_eq!(reader.intermediate(&key("m", "t")).unwrap().n_rows, 300);
    // A record from before the commit reads the rows that came since.
    let record = reader.intermediate(&key("m", "t")).unwrap();
    first.commit().unwrap();
    for (rows, want) in [(Rows::List(vec![900, 300]), &[900, 300][..]), (Rows::Range(800..901), &[900])] {
        let plan = reader.plan_rows(&record, &rows).unwrap();
        let mut out = vec![0.0; want.len() * 144];
        reader.read_f32(&record, &plan, std::slice::from_ref(&(0..144)), &mut out).unwrap();
        assert_eq!(out, batch(want, 144));
    }
    drop(first);
    // A log that is dropped leaves nothing.
    drop(log(&writer, "dropped", &rows));
    assert_eq!(reader.models().unwrap().len(), 1);
    assert_eq!(strays(&reader), [] as [String; 0]);
}

#[test]
fn there_is_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let stores = [Store::open_or_create(dir.path()).unwrap(), Store::open(dir.path()).unwrap()];
    let first = log(&stores[0], "m", &[1]);
    for store in &stores {
        let locked = |r: Result<(), EngineError>| assert!(matches!(r, Err(EngineError::Locked { .. })), "{r:?}");
        locked(store.logger(LogOptions::default()).map(drop));
        locked(store.gc().map(drop));
        locked(store.compact(&mut |_, _| {}).map(drop));
        locked(store.put_operator(b"x", "bytes").map(drop));
    }
    // Whoever opens meanwhile takes no file of the log for an orphan.
    let later = Store::open(dir.path()).unwrap();
    let mut first = first;
    first.commit().unwrap();
    drop(first);
    check(&later, "m", &[1]);
    later.put_operator(b"x", "bytes").unwrap();
    log(&stores[1], "n", &[1]).commit().unwrap();
}

#[test]
fn a_plan_outlives_compact() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Store::open_or_create(dir.path()).unwrap();
    let rows: Vec<u64> = (0..1500).collect();
    log(&writer, "m", &rows).commit().unwrap();
    log(&writer, "old", &[1, 2, 3]).commit().unwrap();
    // Handles that know nothing yet, some places, and all files.
    for warm in [0usize, 1, 1500] {
        let readers = [Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap()];
        for reader in &readers {
            let record = reader.intermediate(&key("m", "t")).unwrap();
            let plan = reader.plan_rows(&record, &Rows::All).unwrap();
            if warm > 0 {
                check(reader, "m", &rows[..warm]);
            }
            reader.clear_pool();
            if warm == 1 {
                writer.compact(&mut |_, _| {}).unwrap();
            } else {
                // What is dead leaves, and numbers that fall free must not be taken for what they named before.
                let old = writer.model(&ModelKey::new("p", "old")).unwrap();
                writer.catalog().remove_model(old.id).unwrap();
                writer.gc().unwrap();
                writer.compact(&mut |_, _| {}).unwrap();
                log(&writer, "old", &[7, 8, 9]).commit().unwrap();
            }
            let mut out = vec![0.0; 1500 * 144];
            reader.read_f32(&record, &plan, std::slice::from_ref(&(0..144)), &mut out).unwrap();
            assert!(out == batch(&rows, 144), "{warm}");
            check(reader, "m", &rows);
            assert_eq!(damage(reader), []);
        }
    }
}

#[test]
fn a_removed_models_record_never_reads_anothers_values() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Store::open_or_create(dir.path()).unwrap();
    let reader = Store::open(dir.path()).unwrap();
    log(&writer, "old", &[1, 2, 3]).commit().unwrap();
    let record = reader.intermediate(&key("old", "t")).unwrap();
    let plan = reader.plan_rows(&record, &Rows::All).unwrap();
    let old = writer.model(&ModelKey::new("p", "old")).unwrap();
    writer.catalog().remove_model(old.id).unwrap();
    writer.gc().unwrap();
    log(&writer, "new", &[4, 5, 6]).commit().unwrap();
    // The same numbers of rows and columns, in a model that took the free place.
    assert_ne!(reader.intermediate(&key("new", "t")).unwrap().id, record.id);
    assert_eq!(reader.plan_rows(&record, &Rows::All).unwrap().n_rows(), 0);
    let mut out = vec![0.0; 3 * 144];
    match reader.read_f32(&record, &plan, std::slice::from_ref(&(0..144)), &mut out) {
        Ok(()) => assert!(out == batch(&[1, 2, 3], 144)),
        Err(e) => assert!(matches!(e, EngineError::Corrupt { .. }), "{e}"),
    }
}

#[test]
fn readers_do_not_notice_compact() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Store::open_or_create(dir.path()).unwrap();
    let rows: Vec<u64> = (0..1200).collect();
    log(&writer, "m", &rows).commit().unwrap();
    let stop = AtomicBool::new(false);
    let reader = Store::open(dir.path()).unwrap();
    std::thread::scope(|s| {
        // Another handle, and the one that compacts.
        let mut readers = Vec::new();
        for store in [&reader, &writer] {
            let (stop, rows) = (&stop, &rows);
            readers.push(s.spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    store.clear_pool();
                    check(store, "m", rows);
                    n += 1;
                }
                n
            }));
        }
        for i in 0..15 {
            log(&writer, "other", &[i]).commit().unwrap();
            writer.compact(&mut |_, _| {}).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|r| r.join().unwrap() > 1));
    });
}

/// A folder in which something happens just before a file is opened.
struct Interrupted {
    inner: LocalStorage,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Storage for Interrupted {
    fn create(&self, path: &str) -> Result<Box<dyn WriteFile>> {
        self.inner.create(path)
    }
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        if let Some(then) = self.then.lock().unwrap().take() {
            then();
        }
        self.inner.open(path)
    }
    fn list(&self, dir: &str) -> Result<Vec<FileInfo>> {
        self.inner.list(dir)
    }
    fn remove(&self, path: &str) -> Result<()> {
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.inner.sync_dir(dir)
    }
    fn free_bytes(&self) -> Result<Option<u64>> {
        self.inner.free_bytes()
    }
    fn open_catalog(&self) -> Result<rusqlite::Connection> {
        self.inner.open_catalog()
    }
    fn lock_writer(&self) -> Result<Box<dyn Send + Sync>> {
        self.inner.lock_writer()
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[test]
fn files_may_go_while_a_read_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(Store::open_or_create(dir.path()).unwrap());
    let rows: Vec<u64> = (0..1500).collect();
    log(&writer, "m", &rows).commit().unwrap();
    assert!(writer.catalog().partitions().unwrap().len() > 3);
    let inner = LocalStorage::existing(dir.path()).unwrap();
    let storage = Arc::new(Interrupted { inner, then: Mutex::new(None) });
    let reader = Store::on(storage.clone(), false, StoreOptions::default()).unwrap();
    // By then the reader has looked up where all chunks lie, and opens the first of many files.
    *storage.then.lock().unwrap() = Some(Box::new(move || {
        writer.compact(&mut |_, _| {}).unwrap();
    }));
    check(&reader, "m", &rows);
    assert!(storage.then.lock().unwrap().is_none());
}

const STORE: &str = "MISTIQUE_TEST_STORE";

/// The other process of the tests below.
#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn other_process() {
    let store = Store::open(std::env::var_os(STORE).unwrap()).unwrap();
    let mut log = log(&store, "other", &(0..2000).collect::<Vec<_>>());
    let mut lines = BufReader::new(std::io::stdin()).lines();
    println!("logging");
    while let Some(Ok(line)) = lines.next() {
        if line == "commit" {
            log.commit().unwrap();
            println!("committed");
        }
    }
}

/// Runs `then` while another process logs; it is given what makes the other commit. Then the other is killed.
fn other(path: &Path, then: impl FnOnce(&mut dyn FnMut())) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "other_process", "--ignored", "--nocapture"])
        .env(STORE, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut wait = |what: &str| while !lines.next().unwrap().unwrap().ends_with(what) {};
    wait("logging");
    let mut stdin = child.stdin.take().unwrap();
    let mut commit = || {
        writeln!(stdin, "commit").unwrap();
        wait("committed");
    };
    then(&mut commit);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn another_process_writes_and_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(dir.path()).unwrap();
    log(&store, "m", &[1, 2]).commit().unwrap();
    let before = visible(&store).unwrap();
    other(dir.path(), |_| {
        assert!(matches!(store.logger(LogOptions::default()), Err(EngineError::Locked { .. })));
        assert!(visible(&store).unwrap() == before);
    });
    // The lock died with it, and the next to come removes its files.
    let next = Store::open(dir.path()).unwrap();
    assert_eq!(strays(&next), [] as [String; 0]);
    assert!(visible(&next).unwrap() == before);
    other(dir.path(), |commit| {
        commit();
        check(&store, "other", &(0..2000).collect::<Vec<_>>());
        assert!(matches!(store.gc(), Err(EngineError::Locked { .. })));
    });
    check(&store, "other", &(0..2000).collect::<Vec<_>>());
    check(&store, "m", &[2, 1]);
    assert_eq!(damage(&store), []);
    log(&store, "m", &[3]).commit().unwrap();
}
