//! Stages: what computed an intermediate, and intermediates that are links to what is there already.

use super::worker::Job;
use super::{Handle, Logger, ModelHandle, advice};
use crate::catalog::{NewLink, NewStage, StageRecord};
use crate::error::{EngineError, Result};
use crate::key::IntermediateKey;
use crate::model::{Fingerprint, IntermediateRecord, hex};

impl Logger {
    /// Says, with the next commit, that all rows of the intermediate were logged, and which computation gave them: the
    /// fingerprint of operator, parameters, inputs and dataset. More rows are refused after it.
    ///
    /// Errors: `Conflict` when it has another stage, `NotFound` for another log's handle, `LogFailed`.
    pub fn set_stage(&mut self, handle: Handle, stage: &Fingerprint) -> Result<()> {
        let open = self.opened(handle)?;
        match open.stage {
            Some(known) if known == *stage => return Ok(()),
            Some(known) => return Err(other_stage(&open.key, &hex(&known), stage)),
            None => self.send(Job::Stage(handle.0, *stage))?,
        }
        if let Some(open) = self.open.get_mut(&handle.0) {
            open.stage = Some(*stage);
        }
        self.stages.entry(*stage).or_insert(handle.0);
        Ok(())
    }

    /// Whether an intermediate has that stage, stored or of this log; what this log replaces does not count.
    ///
    /// Errors: `Catalog`, `Corrupt`.
    pub fn knows_stage(&self, stage: &Fingerprint) -> Result<bool> {
        Ok(self.source(stage)?.is_some())
    }

    fn source(&self, stage: &Fingerprint) -> Result<Option<i64>> {
        if let Some(&id) = self.stages.get(stage).filter(|id| !self.replaced.contains(id)) {
            return Ok(Some(id));
        }
        let stored = self.catalog.intermediates_by_stage(stage)?;
        // Nor what a later model of this log replaces: it is gone with the commit.
        let goes = |id: &i64| self.replaced_models.contains(id) || self.to_replace.contains(id);
        let stays = |i: &&IntermediateRecord| !self.replaced.contains(&i.id) && !goes(&i.model_id);
        Ok(stored.iter().find(stays).map(|i| i.id))
    }

    /// Registers `name` of `model`, with the next commit, as holding what the intermediate of that stage holds, stored or
    /// of this log: the same columns, the same RowBlocks of the same chunks. No value is read, hashed or written. Where
    /// the intermediate exists without a stage, as an interrupted log leaves it, it is replaced.
    ///
    /// Returns `false`, and nothing happens, where no intermediate has the stage.
    /// Errors: `Conflict` when `name` has another stage, or rows of this log; `Catalog`, `LogFailed`.
    pub fn link_stage(&mut self, model: ModelHandle, name: &str, position: i64, stage: &Fingerprint) -> Result<bool> {
        let (key, is_new) = self.key_of(model, name)?;
        let of_log = self.open.values().find(|o| o.key == key).map(|o| o.stage);
        let stored = self.stored(model, is_new, &key)?;
        let known = of_log.or_else(|| self.linked.get(&key).copied()).or_else(|| stored.as_ref().map(|s| s.stage));
        match known.flatten() {
            Some(known) if known == *stage => return Ok(true),
            Some(known) => return Err(other_stage(&key, &hex(&known), stage)),
            None if of_log.is_some() => return Err(other_stage(&key, "rows of this log", stage)),
            None => {}
        }
        let Some(source) = self.source(stage)? else { return Ok(false) };
        if let Some(unfinished) = stored {
            self.send(Job::ReplaceIntermediate(unfinished.id))?;
            self.replaced.insert(unfinished.id);
        }
        let id = self.link(model, key, position, source, Some(*stage))?;
        self.stages.entry(*stage).or_insert(id);
        Ok(true)
    }

    /// As [`Logger::link_stage`], to a stored intermediate with or without a stage, as it is at the commit.
    ///
    /// Errors: `Conflict` when there is an intermediate of that name; `NotFound` with the commit when the source is gone.
    pub fn link_intermediate(
        &mut self,
        model: ModelHandle,
        name: &str,
        position: i64,
        source: &IntermediateRecord,
    ) -> Result<()> {
        let (key, is_new) = self.key_of(model, name)?;
        let taken = self.linked.contains_key(&key) || self.open.values().any(|o| o.key == key);
        if taken || self.stored(model, is_new, &key)?.is_some() {
            let (what, logged) = ("set of rows", "rows of its own".into());
            let (key, given) = (key.to_string(), source.key.to_string());
            return Err(EngineError::Conflict { key, what, logged, given, advice: advice::NEW_VERSION });
        }
        self.link(model, key, position, source.id, source.stage).map(drop)
    }

    fn link(
        &mut self,
        model: ModelHandle,
        key: IntermediateKey,
        position: i64,
        source: i64,
        stage: Option<Fingerprint>,
    ) -> Result<i64> {
        let id = self.next_intermediate;
        self.next_intermediate += 1;
        let name = key.intermediate.clone();
        self.send(Job::Link(NewLink { id, model_id: model.0, name, position, source }))?;
        self.linked.insert(key, stage);
        Ok(id)
    }

    /// Adds a stage to the record of a pipeline's run, with the next commit. A record is never changed: one that is there
    /// already stays.
    ///
    /// Errors: `LogFailed`.
    pub fn stage(&mut self, model: ModelHandle, record: StageRecord) -> Result<()> {
        self.send(Job::Run(Box::new(NewStage { model_id: model.0, record })))
    }
}

fn other_stage(key: &IntermediateKey, logged: &str, given: &Fingerprint) -> EngineError {
    let (key, logged, given) = (key.to_string(), logged.into(), hex(given));
    EngineError::Conflict { key, what: "stage", logged, given, advice: advice::PIPELINE }
}
