//! `calibrate`: measures in a short time what the cost model lacks, by small reads and runs of what is stored.

use std::time::{Duration, Instant};

use mistique_engine::cost::{self, BATCHES, Manner, RATE_VALUES, Target, read_subject};
use mistique_engine::{Code, Content, CostRecord, IntermediateRecord, ModelRecord, Rerun, RowSet, Rows, TensorContent};
use rayon::prelude::*;

use crate::error::Result;
use crate::plan::{self, PlanChoice};
use crate::reader::{ChunkReader, Request};
use crate::rows::RowSelection;

/// Measurements that a figure should stand on.
const WANTED: u64 = 3;
/// Times that reads are measured at most for that.
const ROUNDS: u64 = 2 * WANTED;
/// Values of a read that tells the rate of a layer: few enough that the memory of the answer is not fresh
/// ([`cost::LARGE_VALUES`]), whose rate is kept apart.
const READ_VALUES: usize = 8_000_000;
/// Values of one that the InMemoryStore admits.
const FEW_VALUES: usize = 1 << 19;
/// Bytes that put what was read out of the cores' own caches.
const CACHES: usize = 8 << 20;
/// After so long threads sleep, as they do when a query comes: waking them is part of a read.
const ASLEEP: Duration = Duration::from_millis(3);
/// Rows that lie apart, of a read that tells the rate of tables.
const SCATTERED_ROWS: usize = 1024;

/// A figure of this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What was measured; see [`mistique_engine::cost`].
    pub what: String,
    /// Of what: a model and stage, a scheme, a dataset.
    pub of: String,
    /// Mean, variance, number of measurements, and when the last one was made.
    pub cost: CostRecord,
}

/// What [`ChunkReader::calibrate`] did.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Every figure of this machine, those measured before included.
    pub figures: Vec<Figure>,
    /// Measurements made now.
    pub made: u64,
    /// What is still missing, and why.
    pub missing: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Values of a row as the model gives them.
fn row_values(record: &IntermediateRecord) -> usize {
    match &*record.content {
        Content::Tensor(t) => t.layout.row_values(),
        Content::Table(t) => t.schema.fields().len(),
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Some of the rows, in no order: enough to tell a rate.
fn scattered(rows: &RowSet) -> Vec<u64> {
    let n = rows.len();
    // Without a common divisor, so that no row comes twice; the golden section leaves no two of them close.
    let step = (1..=(n as f64 * 0.618) as usize).rev().find(|step| gcd(*step, n) == 1).unwrap_or(1);
    (0..n.min(SCATTERED_ROWS)).filter_map(|i| rows.get(i * step % n)).collect()
}

impl ChunkReader<'_> {
    /// Measures what the cost model lacks of these models, for about `budget`: load time, stage by stage the time of
    /// batches of several sizes, input and output, and the rates at which their intermediates are read. `progress` gets
    /// what is measured next, and how many models of how many are done.
    ///
    /// Errors: those of the store. A model that cannot be run is reported and not run.
    pub fn calibrate(
        &self,
        models: &[ModelRecord],
        budget: Duration,
        progress: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<Calibration> {
        let begun = Instant::now();
        let mut missing = Vec::new();
        let before = self.measurements()?;
        self.measure_fresh_memory()?;
        for (done, model) in models.iter().enumerate() {
            progress(&model.spec.key.to_string(), done, models.len());
            // What one model may take, of what is left.
            let left = budget.saturating_sub(begun.elapsed()) / (models.len() - done) as u32;
            let until = Instant::now() + left;
            let half = Instant::now() + left / 2;
            let records = self.store().intermediates_of(model.id)?;
            // All of them in turn, and again: one disturbed moment must not be all that is known of one.
            'reads: for round in 0..ROUNDS {
                for record in records.iter().filter(|r| r.n_rows > 0 && r.is_whole()) {
                    if Instant::now() <= half {
                        self.measure_read(record)?;
                    } else if round == 0 {
                        missing.push(format!("reads of {}: no time was left", record.key));
                    } else {
                        break 'reads;
                    }
                }
            }
            if let Some(workflow) = self.workflows().iter().find(|w| w.runs(model)) {
                self.measure_runs(&**workflow, model, &records, until, &mut missing)?;
            }
        }
        let made = self.measurements()?.saturating_sub(before);
        Ok(Calibration { figures: self.figures(models)?, made, missing, took: begun.elapsed() })
    }

    fn measurements(&self) -> Result<u64> {
        Ok(self.store().costs()?.iter().map(|(_, _, c)| c.n).sum())
    }

    fn lacks(&self, what: &str, subject: &str) -> Result<bool> {
        Ok(self.store().cost(what, subject)?.is_none_or(|c| c.n < WANTED))
    }

    /// Memory as large answers take it: of every page, one value is written.
    fn measure_fresh_memory(&self) -> Result<()> {
        const VALUES: usize = 1 << 26;
        const PAGE: usize = 1024;
        for _ in 0..WANTED {
            if !self.lacks(cost::FRESH, "")? {
                break;
            }
            let begun = Instant::now();
            let mut fresh = vec![0f32; VALUES];
            fresh.iter_mut().step_by(PAGE).for_each(|v| *v = 1.0);
            std::hint::black_box(&fresh);
            self.store().add_cost(cost::FRESH, "", begun.elapsed().as_secs_f64() / VALUES as f64)?;
        }
        Ok(())
    }

    /// A row read into memory, the same row from there, and as many rows as tell the rate.
    fn measure_read(&self, record: &IntermediateRecord) -> Result<()> {
        let store = self.store();
        match &*record.content {
            Content::Table(t) => {
                let rows = Rows::Range(0..(4 * t.block_rows as u64));
                let columns: Vec<usize> = (0..t.schema.fields().len()).collect();
                let plan = store.plan_rows(record, &rows)?;
                let apart = store.plan_rows(record, &Rows::List(scattered(&plan.rows)))?;
                let one = store.plan_rows(record, &Rows::List(plan.rows.get(0).into_iter().collect()))?;
                // Decoded, and taken from memory; one row first, which tells what a column takes whatever its rows.
                store.clear_pool();
                let mut caches = vec![0u64; CACHES / 8];
                for plan in [&one, &one, &plan, &plan, &apart] {
                    // Other work comes between two queries, so that little is left in the processor's own caches.
                    caches.par_iter_mut().for_each(|v| *v += 1);
                    std::thread::sleep(ASLEEP);
                    store.read_table(record, plan, &columns)?;
                }
            }
            // Read whole, by another way, which measures itself.
            Content::Tensor(t) if t.layout.code == Code::F64 => {
                let rows = Rows::Range(0..(4 * t.layout.block_rows as u64));
                store.read_codes(record, &store.plan_rows(record, &rows)?)?;
            }
            Content::Tensor(t) => self.measure_tensor(record, t)?,
        }
        Ok(())
    }

    /// In each manner that costs are kept by and that is lacking: little and much, whole rows and parts of pages, for the
    /// first time and again.
    fn measure_tensor(&self, record: &IntermediateRecord, t: &TensorContent) -> Result<()> {
        let (store, n) = (self.store(), t.layout.stored_values().max(1));
        let (scheme, of) = (t.scheme.to_string(), Some(record.id));
        let (mut out, mut caches) = (Vec::new(), vec![0u64; CACHES / 8]);
        for (target, in_part) in
            [(Target::Memory, false), (Target::Memory, true), (Target::Answer, false), (Target::Answer, true)]
        {
            let first = Manner { target, again: false, in_part };
            let again = read_subject(&scheme, Manner { again: true, ..first }, of);
            // What is read again was held in memory, or is read from the file as before.
            let lacks_again =
                target == Target::Memory && self.lacks(cost::HELD, &scheme)? && self.lacks(cost::READ, &again)?;
            if !self.lacks(cost::READ, &read_subject(&scheme, first, of))? && !lacks_again {
                continue;
            }
            let values = if target == Target::Memory { FEW_VALUES } else { READ_VALUES };
            let sets = store.row_sets(record)?;
            let ids = sets.iter().flat_map(|s| s.iter());
            let rows: Vec<u64> = if in_part {
                // A row of each page.
                ids.step_by(t.layout.page_rows).take((values / n / t.layout.page_rows).max(1)).collect()
            } else {
                ids.take((values / n).max(t.layout.page_rows)).collect()
            };
            let plan = store.plan_rows(record, &Rows::List(rows))?;
            out.resize(plan.n_rows() * n, 0.0);
            store.clear_pool();
            for _ in 0..2 {
                // Other work comes between two queries, so that little is left in the processor's own caches.
                caches.par_iter_mut().for_each(|v| *v += 1);
                match target {
                    Target::Memory => store.read_f32(record, &plan, &[0..n], &mut out)?,
                    Target::Answer => store.read_past_memory(record, &plan, &[0..n], &mut out)?,
                }
            }
        }
        Ok(())
    }

    /// The model's last stages over batches of several sizes, small ones first; and one pooled answer.
    fn measure_runs(
        &self,
        workflow: &dyn Rerun,
        model: &ModelRecord,
        records: &[IntermediateRecord],
        until: Instant,
        missing: &mut Vec<String>,
    ) -> Result<()> {
        let key = &model.spec.key;
        if let Some(why) = workflow.lacks(model, false) {
            missing.push(format!("runs of {key}: {why}"));
            return Ok(());
        }
        let graph = workflow.graph(model)?;
        let is_last = |v: &usize| !graph.iter().any(|s| s.inputs.contains(v));
        let last: Vec<String> =
            (0..graph.len()).filter(is_last).filter_map(|v| Some(graph.get(v)?.name.clone())).collect();
        let subject = cost::model_subject(&model.spec.description, &workflow.device());
        let n_dataset = model.spec.dataset.as_ref().map_or(0, |d| d.n_rows);
        let most = workflow.batch_rows().unwrap_or(n_dataset).min(n_dataset);
        let sizes: Vec<u64> = match workflow.batch_rows() {
            Some(_) => BATCHES.into_iter().filter(|b| *b <= most).collect(),
            // Stages that run whole are kept as a batch of one, and run whatever rows are asked for.
            None => vec![1],
        };
        for size in sizes {
            let n = if workflow.batch_rows().is_some() { size } else { 0 };
            let rows: Vec<u64> = (0..n).collect();
            // A stage that runs whole is soon run, and what logging measured of it was measured beside the log; the first
            // of these runs reads the dataset, which slows its other stages too. One disturbed moment must not be all of it.
            let is_whole = workflow.batch_rows().is_none();
            // One of half the time of those before it begins anew, so that it can take more than those wanted.
            for _ in 0..if is_whole { 5 * WANTED } else { 3 * WANTED } {
                let mut lacking = is_whole;
                for stage in graph.iter() {
                    lacking |= self.lacks(cost::STAGE, &cost::stage_subject(&subject, &stage.name, size))?;
                }
                if !lacking {
                    break;
                }
                if Instant::now() > until {
                    missing.push(format!("batches of {size} rows of {key}: no time was left"));
                    break;
                }
                if let Err(e) = workflow.rerun(model, &last, &rows, &[]) {
                    missing.push(e.to_string());
                    return Ok(());
                }
            }
        }
        let pooled = records.iter().find(|r| match &*r.content {
            Content::Tensor(t) => t.layout.stored != t.layout.map,
            Content::Table(_) => false,
        });
        // What handing values over takes, told by the widest layer; and pooling them.
        let widest = records.iter().filter(|r| r.n_rows > 0).max_by_key(|r| row_values(r));
        for record in pooled.into_iter().chain(widest) {
            if Instant::now() > until {
                missing.push(format!("outputs of {}: no time was left", record.key));
                break;
            }
            let selections = match &*record.content {
                Content::Tensor(_) => {
                    let rows = (2.0 * RATE_VALUES) as u64 / row_values(record).max(1) as u64 + 1;
                    vec![RowSelection::Range(0..rows.min(most))]
                }
                Content::Table(_) => {
                    let apart = scattered(&self.store().plan_rows(record, &Rows::All)?.rows);
                    let first = apart.iter().min().copied().unwrap_or_default();
                    vec![RowSelection::Range(first..first + apart.len() as u64), RowSelection::List(apart)]
                }
            };
            for rows in selections {
                let request = Request::new(self.key(&record.key)).with_rows(rows).with_plan(PlanChoice::RERUN);
                for _ in 0..WANTED {
                    self.measure_answer(&request)?;
                }
            }
        }
        Ok(())
    }

    /// Answers a request, which no user asked and which so does not count as a query.
    fn measure_answer(&self, request: &Request) -> Result<()> {
        let (batch, context) = ([self.resolve(request, None)?], self.context(false));
        match &plan::explain(&context, &batch)?[..] {
            [explained] => self.follow(&context, &batch, 0, explained).map(drop),
            _ => Ok(()),
        }
    }

    /// The figures of this machine, with models named where they are among `models`.
    fn figures(&self, models: &[ModelRecord]) -> Result<Vec<Figure>> {
        let named: Vec<(String, String)> = models
            .iter()
            .map(|m| (mistique_engine::hex(&mistique_engine::fingerprint(m.spec.description.as_bytes())), m))
            .map(|(hash, m)| (hash, m.spec.key.to_string()))
            .collect();
        let datasets: Vec<(String, String)> = models
            .iter()
            .filter_map(|m| m.spec.dataset.as_ref())
            .map(|d| (mistique_engine::hex(&d.fingerprint), d.name.clone()))
            .collect();
        let name = |subject: &str| {
            let found = named
                .iter()
                .chain(&datasets)
                .find_map(|(hash, name)| Some((name, subject.strip_prefix(hash.as_str())?)));
            found.map_or_else(|| subject.to_string(), |(name, rest)| format!("{name}{rest}"))
        };
        let costs = self.store().costs()?.into_iter();
        Ok(costs.map(|(what, subject, cost)| Figure { what, of: name(&subject), cost }).collect())
    }
}
