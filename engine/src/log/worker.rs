//! The log's thread: takes batches in order, builds RowBlocks, writes chunks, commits.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, OnceLock};

use arrow::record_batch::RecordBatch;
use mistique_quantize::OnUnholdable;
use twox_hash::XxHash3_64;

use super::budget::Budget;
use super::columns::NamedColumn;
use super::fill::FillJob;
use super::growing::GrowingChunk;
use super::slabs::Slabs;
use super::source::TensorSource;
use super::table::{SealedTable, TableBuilder};
use super::tensor::{SealedBlock, TensorBuilder, Tools};
use super::writer::{ChunkWriter, LogReport};
use crate::catalog::{Commit, IntermediateProgress, NewBlock, NewIntermediate, NewLink, NewModel, NewStage, WITHHELD};
use crate::error::{EngineError, Result};
use crate::key::IntermediateKey;
use crate::model::{Content, Fingerprint, TensorContent};
use crate::rows::RowSet;
use crate::storage::Storage;

/// What the log's thread is asked.
pub enum Job {
    /// A model to add with the next commit.
    Model(NewModel),
    /// An unfinished pipeline that goes on under another description.
    Redescribe(NewModel),
    /// A model whose dataset, the same by content, has another name or lies elsewhere now.
    Rebind(NewModel),
    /// Models whose dataset's name is another content's from the next commit on.
    Unbind(Vec<i64>),
    /// A model whose content goes with the next commit.
    Replace(i64),
    /// An intermediate whose content goes with the next commit.
    ReplaceIntermediate(i64),
    /// An intermediate to write rows of.
    Intermediate(Box<Begin>),
    /// Tensor rows.
    Tensor {
        /// The intermediate.
        id: i64,
        /// Row_ids.
        rows: Vec<u64>,
        /// Values.
        source: Box<dyn TensorSource>,
        /// Bytes taken from the budget.
        bytes: usize,
    },
    /// Table rows.
    Table {
        /// The intermediate.
        id: i64,
        /// Row_ids.
        rows: Vec<u64>,
        /// Columns.
        batch: RecordBatch,
        /// Bytes taken from the budget.
        bytes: usize,
    },
    /// Batches that were appended, and lie together now.
    Joined {
        /// The batches.
        parts: Vec<RecordBatch>,
        /// All of them.
        whole: RecordBatch,
    },
    /// Rows of an intermediate whose values are withheld.
    Rows {
        /// The intermediate.
        id: i64,
        /// Row_ids.
        rows: Vec<u64>,
    },
    /// Values that RowBlocks lack.
    Fill(Box<FillJob>),
    /// The computation that gave an intermediate whose rows are all there, said with the next commit.
    Stage(i64, Fingerprint),
    /// An intermediate that holds what another one holds, with the next commit.
    Link(NewLink),
    /// A stage of a pipeline that ran.
    Run(Box<NewStage>),
    /// Whether a model's log is finished, said with the next commit.
    Complete(i64, bool),
    /// Makes everything before it durable and visible.
    Commit(SyncSender<Result<LogReport>>),
}

/// An intermediate that a log begins to write.
pub struct Begin {
    /// Key, for messages.
    pub key: IntermediateKey,
    /// Its record; added with the next commit when `is_new`.
    pub record: NewIntermediate,
    /// Whether the catalogue does not have it.
    pub is_new: bool,
    /// Whether only rows are kept, since the values can be rerun.
    pub withheld: bool,
    /// What earlier logs measured.
    pub progress: IntermediateProgress,
}

enum Builder {
    Tensor(Box<TensorBuilder>),
    Table(IntermediateKey, TableBuilder),
}

impl Builder {
    fn held_bytes(&self) -> usize {
        match self {
            Self::Tensor(b) => b.held_bytes(),
            Self::Table(_, b) => b.held_bytes(),
        }
    }
}

struct Closing(Arc<Budget>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The threads that the log works on.
struct Threads {
    /// They step back for the model.
    yielding: rayon::ThreadPool,
    /// They do not: for the time in which a commit is waited for.
    urgent: rayon::ThreadPool,
    awaited: Arc<AtomicBool>,
}

impl Threads {
    /// Those to work on now: asked for each RowBlock, since the wait for a commit can begin amid a table.
    fn now(&self) -> &rayon::ThreadPool {
        if self.awaited.load(Ordering::Relaxed) { &self.urgent } else { &self.yielding }
    }

    /// Does the log's own part of the work, of which nothing waits for the model either while a commit is waited for.
    fn work<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        if self.awaited.load(Ordering::Relaxed) { self.urgent.install(f) } else { f() }
    }
}

/// State of the log's thread.
pub struct Worker {
    storage: Arc<dyn Storage>,
    writer: ChunkWriter,
    builders: BTreeMap<i64, Builder>,
    /// Bytes held by those of them that hold some: a log can have thousands.
    held: BTreeMap<i64, usize>,
    /// Records not yet in the catalogue; their content is settled when their builder has seen its first rows.
    new: Vec<NewIntermediate>,
    commit: Commit,
    blocks: Vec<NewBlock>,
    /// Intermediates of which only rows are kept.
    withheld: HashSet<i64>,
    slabs: Arc<Slabs>,
    threads: Arc<Threads>,
    budget: Arc<Budget>,
    failed: Arc<OnceLock<Arc<EngineError>>>,
    on_bad: OnUnholdable,
}

impl Worker {
    /// The state of a log that begins.
    ///
    /// Errors: `Io` when no threads can be started.
    pub fn new(
        storage: Arc<dyn Storage>,
        writer: ChunkWriter,
        budget: Arc<Budget>,
        failed: Arc<OnceLock<Arc<EngineError>>>,
        awaited: Arc<AtomicBool>,
        on_bad: OnUnholdable,
        n_threads: usize,
    ) -> Result<Self> {
        let threads = |name: &'static str, start: fn(usize)| {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(n_threads).start_handler(start);
            let pool = builder.thread_name(move |i| format!("{name}-{i}")).build();
            pool.map_err(|e| EngineError::io("log", "start threads", std::io::Error::other(e)))
        };
        // Both now: a thread begins with the priority of the one that starts it, and the log's own steps back.
        let yielding = threads("mistique-log", |_| step_back())?;
        let urgent = threads("mistique-urgent", |_| ())?;
        Ok(Self {
            storage,
            writer,
            builders: BTreeMap::new(),
            held: BTreeMap::new(),
            new: Vec::new(),
            commit: Commit::default(),
            blocks: Vec::new(),
            withheld: HashSet::new(),
            slabs: Arc::default(),
            threads: Arc::new(Threads { yielding, urgent, awaited }),
            budget,
            failed,
            on_bad,
        })
    }

    /// Works until all senders are gone.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        step_back();
        // Also when a job panics: whoever waits for the budget must not wait for ever.
        let _closing = Closing(Arc::clone(&self.budget));
        while let Ok(job) = jobs.recv() {
            let (bytes, reply) = match &job {
                Job::Tensor { bytes, .. } | Job::Table { bytes, .. } => (*bytes, None),
                Job::Commit(reply) => (0, Some(reply.clone())),
                _ => (0, None),
            };
            let result = match self.failed.get() {
                Some(earlier) => Err(EngineError::LogFailed(Arc::clone(earlier))),
                None => Arc::clone(&self.threads).work(|| self.take(job)),
            };
            if let Err(e) = &result {
                tracing::debug!("log: {e}");
            }
            let answer = match result {
                Ok(()) => Ok(self.writer.report),
                Err(EngineError::LogFailed(e)) => Err(EngineError::LogFailed(e)),
                Err(e) => {
                    let e = Arc::new(e);
                    // Only this thread sets it, and only once: after it, no job is taken.
                    let _ = self.failed.set(Arc::clone(&e));
                    Err(EngineError::LogFailed(e))
                }
            };
            self.budget.done(bytes, self.held_bytes());
            if let Some(reply) = reply {
                self.threads.awaited.store(false, Ordering::Relaxed);
                // The caller may have gone; the commit stands all the same.
                let _ = reply.send(answer);
            }
        }
        self.writer.abandon();
    }

    fn held_bytes(&self) -> usize {
        self.held.values().sum::<usize>() + self.slabs.free_bytes()
    }

    /// Counts what a builder holds now.
    fn count_held(&mut self, id: i64) {
        match self.builders.get(&id).map_or(0, Builder::held_bytes) {
            0 => self.held.remove(&id),
            bytes => self.held.insert(id, bytes),
        };
    }

    fn take(&mut self, job: Job) -> Result<()> {
        let appended = match &job {
            Job::Tensor { id, .. } | Job::Table { id, .. } | Job::Rows { id, .. } => Some(*id),
            _ => None,
        };
        match job {
            Job::Model(model) => self.commit.models.push(model),
            Job::Redescribe(model) => self.commit.redescribed.push(model),
            Job::Rebind(model) => self.commit.rebound.push(model),
            Job::Unbind(ids) => self.commit.unbound_models.extend(ids),
            Job::Replace(id) => self.commit.replaced_models.push(id),
            Job::ReplaceIntermediate(id) => self.commit.replaced_intermediates.push(id),
            Job::Run(run) => self.commit.runs.push(*run),
            Job::Stage(id, stage) => {
                // No more rows come: what is left need not wait for the commit.
                self.flush(id)?;
                self.commit.stages.push((id, stage));
            }
            Job::Link(link) => self.commit.links.push(link),
            Job::Complete(id, complete) => self.commit.complete.push((id, complete)),
            Job::Intermediate(begin) => {
                let Begin { key, record, is_new, withheld, progress } = *begin;
                let builder = match &record.content {
                    Content::Tensor(t) => {
                        let new = TensorBuilder::new(key, t.clone(), progress, self.on_bad)?;
                        Builder::Tensor(Box::new(new))
                    }
                    Content::Table(t) => Builder::Table(key, TableBuilder::new(t.clone())),
                };
                self.builders.insert(record.id, builder);
                if withheld {
                    self.withheld.insert(record.id);
                }
                if is_new {
                    self.new.push(record);
                }
            }
            Job::Tensor { id, rows, source, .. } => {
                self.writer.report.rows += rows.len() as u64;
                self.writer.report.logical_bytes += (source.len() * source.dtype().width()) as u64;
                self.tensor(id, |builder, tools| builder.append(rows, source, tools))?;
                self.keep_rows_only(id)?;
            }
            Job::Table { id, rows, batch, .. } => {
                self.writer.report.rows += rows.len() as u64;
                if let Some(Builder::Table(_, builder)) = self.builders.get(&id) {
                    self.writer.report.logical_bytes += rows.len() as u64 * builder.logical_row_bytes();
                }
                self.table(id, |builder, sealed| builder.append(&rows, &batch, sealed))?;
            }
            Job::Joined { parts, whole } => {
                let mut at = 0;
                for part in &parts {
                    let there = whole.slice(at, part.num_rows());
                    part.columns().iter().zip(there.columns()).for_each(|(a, b)| self.writer.seen.moved(a, b));
                    at += part.num_rows();
                }
            }
            Job::Rows { id, rows } => {
                self.writer.report.rows += rows.len() as u64;
                match self.builders.get(&id) {
                    Some(Builder::Tensor(_)) => self.tensor(id, |b, tools| b.append_rows(&rows, tools))?,
                    Some(Builder::Table(..)) => self.table(id, |b, sealed| b.append_rows(&rows, sealed))?,
                    None => {}
                }
            }
            Job::Fill(fill) => {
                self.commit.fills.extend(fill.run(&mut self.writer, self.threads.now(), self.on_bad)?);
            }
            Job::Commit(_) => return self.commit(),
        }
        appended.into_iter().for_each(|id| self.count_held(id));
        self.evict()
    }

    /// Seals the largest unfinished RowBlocks early while they hold too much of the budget. What is above it is given
    /// back to the system; the rest of their memory is for those that come.
    fn evict(&mut self) -> Result<()> {
        let limit = self.budget.most_built();
        loop {
            let over = self.held_bytes().saturating_sub(limit);
            if over == 0 {
                return Ok(());
            }
            if self.slabs.shed(over) == 0 {
                let Some((&id, _)) = self.held.iter().max_by_key(|(_, bytes)| **bytes) else { return Ok(()) };
                self.flush(id)?;
            }
        }
    }

    fn flush(&mut self, id: i64) -> Result<()> {
        match self.builders.get(&id) {
            Some(Builder::Table(..)) => self.table(id, |builder, sealed| builder.flush(sealed))?,
            Some(Builder::Tensor(_)) => self.tensor(id, |builder, tools| builder.flush(tools))?,
            None => {}
        }
        self.count_held(id);
        Ok(())
    }

    /// Lets a tensor's builder work; what it seals is stored.
    fn tensor(&mut self, id: i64, work: impl FnOnce(&mut TensorBuilder, &mut Tools<'_>) -> Result<()>) -> Result<()> {
        let threads = &*self.threads;
        let Some(Builder::Tensor(builder)) = self.builders.get_mut(&id) else { return Ok(()) };
        let key = builder.key.clone();
        let (blocks, estimates) = (&mut self.blocks, &mut self.commit.group_bytes);
        let withheld = self.withheld.contains(&id);
        let mut put = Put { writer: &mut self.writer, threads, key: &key, id, withheld, blocks, estimates };
        let mut sealed =
            |content: &TensorContent, mut b: SealedBlock| put.block(&b.rows, content.layout.n_groups(), &mut b.chunks);
        work(builder, &mut Tools { pool: threads.now(), slabs: &self.slabs, sealed: &mut sealed })
    }

    /// The same for a table's builder.
    fn table(
        &mut self,
        id: i64,
        work: impl FnOnce(&mut TableBuilder, &mut dyn FnMut(SealedTable) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let threads = &*self.threads;
        let Some(Builder::Table(key, builder)) = self.builders.get_mut(&id) else { return Ok(()) };
        let (blocks, estimates) = (&mut self.blocks, &mut self.commit.group_bytes);
        let (key, n_groups) = (key.clone(), builder.n_columns());
        let withheld = self.withheld.contains(&id);
        let mut put = Put { writer: &mut self.writer, threads, key: &key, id, withheld, blocks, estimates };
        let names = builder.names();
        work(builder, &mut |b| {
            let columns = b.columns.iter().zip(&names);
            let columns: Vec<_> = columns.map(|(array, name)| NamedColumn { array, name }).collect();
            put.columns(&b.rows, n_groups, &columns)
        })?;
        if withheld && builder.has_sealed() {
            builder.keep_rows_only();
        }
        Ok(())
    }

    /// Once a withheld tensor's first rows have settled its scheme and told its size, its rows alone are kept.
    fn keep_rows_only(&mut self, id: i64) -> Result<()> {
        if !self.withheld.contains(&id) {
            return Ok(());
        }
        let Some(Builder::Tensor(builder)) = self.builders.get_mut(&id) else { return Ok(()) };
        let Some(mut chunks) = builder.keep_rows_only() else { return Ok(()) };
        let bytes = self.writer.measure(&mut chunks, &builder.key, self.threads.now())?;
        self.commit.group_bytes.push((id, bytes));
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        for id in self.builders.keys().copied().collect::<Vec<_>>() {
            self.flush(id)?;
        }
        self.slabs.shed(usize::MAX);
        let mut commit = std::mem::take(&mut self.commit);
        (commit.partitions, commit.chunks, commit.lsh) = self.writer.finish()?;
        commit.blocks = std::mem::take(&mut self.blocks);
        for mut record in std::mem::take(&mut self.new) {
            if let Some(Builder::Tensor(b)) = self.builders.get(&record.id) {
                record.content = Content::Tensor(b.content().clone());
            }
            commit.intermediates.push(record);
        }
        let mut clamped = 0;
        for (id, builder) in &mut self.builders {
            if let Builder::Tensor(builder) = builder {
                let mut progress = builder.progress();
                clamped += progress.clamped;
                progress.id = *id;
                progress.settled = builder.take_settled().then(|| builder.content().clone());
                commit.progress.push(progress);
            }
        }
        // Whether a transaction that failed is durable only the catalogue can say, when it is next opened: until then
        // its files stay.
        self.writer.report.clamped = clamped;
        let done = self.writer.catalog().commit(&*self.storage, &commit);
        self.writer.committed();
        done
    }
}

/// Lets the model's threads go first: the log then works in the gaps that the model leaves. When the queue is full the
/// model waits, so that the log cannot starve.
pub fn step_back() {
    const NICE: i32 = 10;
    // On Linux this is the calling thread's priority alone; elsewhere it would be the whole process's.
    #[cfg(target_os = "linux")]
    if let Err(e) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("the log's threads keep their priority: {e}");
    }
}

/// Where the sealed RowBlocks of one intermediate go.
struct Put<'a> {
    writer: &'a mut ChunkWriter,
    threads: &'a Threads,
    key: &'a IntermediateKey,
    id: i64,
    withheld: bool,
    blocks: &'a mut Vec<NewBlock>,
    estimates: &'a mut Vec<(i64, Vec<f32>)>,
}

impl Put<'_> {
    fn block(&mut self, rows: &[u64], n_groups: usize, chunks: &mut [GrowingChunk]) -> Result<()> {
        let chunks = if self.withheld {
            if !chunks.is_empty() && !self.is_estimated() {
                self.estimates.push((self.id, self.writer.measure(chunks, self.key, self.threads.now())?));
            }
            vec![WITHHELD; n_groups]
        } else {
            self.writer.put(chunks, self.key, self.threads.now())?
        };
        self.blocks.push(NewBlock { intermediate_id: self.id, rows: RowSet::from_ids(rows), chunks });
        Ok(())
    }

    fn columns(&mut self, rows: &[u64], n_groups: usize, columns: &[NamedColumn<'_>]) -> Result<()> {
        let set = RowSet::from_ids(rows);
        let chunks = if self.withheld {
            if !columns.is_empty() && !self.is_estimated() {
                self.estimates.push((self.id, self.writer.measure_columns(columns, self.key, self.threads.now())?));
            }
            vec![WITHHELD; n_groups]
        } else {
            let (rows, pool) = (XxHash3_64::oneshot(&set.to_bytes()), self.threads.now());
            self.writer.reading(|writer| writer.put_columns(self.id, columns, rows, self.key, pool))?
        };
        self.blocks.push(NewBlock { intermediate_id: self.id, rows: set, chunks });
        Ok(())
    }

    fn is_estimated(&self) -> bool {
        self.estimates.iter().any(|(id, _)| *id == self.id)
    }
}
