//! What resolves a conflict with what was logged.

/// Under a model's key.
pub(super) const NEW_VERSION: &str = "log under a new version (model@version) or pass --replace";
/// Under a pipeline's key, which its file says.
pub(super) const PIPELINE: &str = "give the pipeline another `name` in its file (in a grid, the setting another `version`), name \
                                   another --project, or pass --replace";
/// Of a dataset's name that other models have.
pub(super) const OTHER_DATASET: &str = "give the new content a name of its own with --dataset NAME";
/// Of a dataset's name that the model itself has.
pub(super) const REPLACED_DATASET: &str =
    "pass --replace, and --dataset NAME where other models stay over the old content";
