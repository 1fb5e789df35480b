//! What resolves a conflict with what was logged.

/// Under a model's key.
pub(super) const NEW_VERSION: &str = "log under a new version (model@version) or pass --replace";
/// Under a key of another kind of model than one of appended values, of which --replace takes intermediates alone.
pub(super) const APPENDED: &str =
    "what a run gives is not appended to: name another model, or another version (model@version)";
/// Under a pipeline's key, which its file says.
pub(super) const PIPELINE: &str = "give the pipeline another `name` in its file (in a grid, the setting another `version`), name \
                                   another --project, or pass --replace";
/// Of a dataset's name that other models have.
pub(super) const OTHER_DATASET: &str = "give the new content a name of its own with --dataset NAME";
/// Of a dataset's name that the model itself has.
pub(super) const REPLACED_DATASET: &str =
    "pass --replace, and --dataset NAME where other models stay over the old content";
/// Where too much would be written, judged before anything is.
pub(super) const TAKE_LESS: &str = "choose a smaller --scheme, fewer --layers or --rows, or raise the limit";
/// Where too much was written.
pub(super) const KEEP_LESS: &str =
    "raise the limit, or let the store keep less that can be run again: --materialize none or adaptive(SECONDS PER GB)";
