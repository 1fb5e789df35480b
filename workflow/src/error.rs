//! What can go wrong with a network: each variant names the layer or tensor, what was expected, and what to do.

use std::fmt;

use crate::suggest::hint;

/// Where in a description an error lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The layer's name; `#3` when the third layer of the description has none.
    pub layer: String,
    /// 1-based line of the description, where the syntax gives it (YAML does).
    pub line: Option<u64>,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer {:?}", self.layer)?;
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

/// An error of describing, loading, running or training a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The text is neither valid YAML nor valid JSON, or its outer structure is not a network's.
    #[error("the network description does not parse: {message}")]
    Syntax {
        /// The parser's message, with the place.
        message: String,
        /// 1-based line, where known.
        line: Option<u64>,
    },
    /// The description holds no layer.
    #[error("the network {network:?} has no layers; list at least one under `layers:`")]
    NoLayers {
        /// The network's name.
        network: String,
    },
    /// The shape of the network's input is unusable.
    #[error("input shape {found:?}: expected one to four positive sizes of one row, such as [3, 32, 32]")]
    BadInputShape {
        /// The shape as described.
        found: Vec<usize>,
    },
    /// A layer lacks a key that its kind needs.
    #[error("{at}: {op} needs the key `{key}` ({expected})")]
    MissingKey {
        /// The layer.
        at: Box<At>,
        /// The layer's kind.
        op: String,
        /// The missing key.
        key: String,
        /// What its value must be.
        expected: String,
    },
    /// A layer has a key that its kind does not know.
    #[error("{at}: unknown key `{key}` for {op}{}; known keys: {known}", hint(nearest))]
    UnknownKey {
        /// The layer.
        at: Box<At>,
        /// The layer's kind.
        op: String,
        /// The key as written.
        key: String,
        /// The likely intended key.
        nearest: Option<String>,
        /// All keys of the kind, comma separated.
        known: String,
    },
    /// A key's value has the wrong type or range.
    #[error("{at}: `{key}` is {found}; expected {expected}")]
    BadValue {
        /// The layer.
        at: Box<At>,
        /// The key.
        key: String,
        /// What was expected.
        expected: String,
        /// The value as written.
        found: String,
    },
    /// No layer kind has this name.
    #[error("{at}: unknown op {op:?}{}; known: {known}", hint(nearest))]
    UnknownOp {
        /// The layer.
        at: Box<At>,
        /// The kind as written.
        op: String,
        /// The likely intended kind.
        nearest: Option<String>,
        /// All kinds, comma separated.
        known: String,
    },
    /// Two layers share a name.
    #[error("{at}: the name is already taken{}; give each layer its own", match first_line { Some(l) => format!(" on line {l}"), None => String::new() })]
    DuplicateName {
        /// The second layer of that name.
        at: Box<At>,
        /// Line of the first.
        first_line: Option<u64>,
    },
    /// A layer is called `input`, which means the network's input, or has an empty name.
    #[error("{at}: the name {:?} cannot be used (`input` means the network's input); choose another", at.layer)]
    ReservedName {
        /// The layer.
        at: Box<At>,
    },
    /// A layer reads from a name that no layer has.
    #[error("{at}: input {input:?} is not a layer{}; use a layer listed above, or `input`", hint(nearest))]
    UnknownInput {
        /// The reading layer.
        at: Box<At>,
        /// The name as written.
        input: String,
        /// The likely intended name.
        nearest: Option<String>,
    },
    /// A layer reads from one that is listed below it.
    #[error("{at}: input {input:?} is only defined further down; move {input:?} above it")]
    UsedBeforeDefined {
        /// The reading layer.
        at: Box<At>,
        /// The later layer.
        input: String,
    },
    /// Layers read from each other in a circle.
    #[error("{at}: the layers form a cycle: {path}; remove one of these inputs")]
    Cycle {
        /// The layer at which the circle was noticed.
        at: Box<At>,
        /// The names along the circle, joined by arrows.
        path: String,
    },
    /// A layer has the wrong number of inputs.
    #[error("{at}: {op} takes {expected}, found {found}")]
    InputCount {
        /// The layer.
        at: Box<At>,
        /// The layer's kind.
        op: String,
        /// How many inputs it takes.
        expected: &'static str,
        /// How many are given.
        found: usize,
    },
    /// A layer's inputs have shapes that its kind cannot take.
    #[error("{at}: {op} expects {expected}, but its input is {found}")]
    Shape {
        /// The layer.
        at: Box<At>,
        /// The layer's kind.
        op: String,
        /// What the kind takes.
        expected: String,
        /// The shapes found.
        found: String,
    },
    /// A layer's output or parameters exceed what can be run.
    #[error("{at}: {what} would hold more than {limit} values; use smaller sizes")]
    TooLarge {
        /// The layer.
        at: Box<At>,
        /// "its output for one row" or "its parameters".
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// No builtin network has this name.
    #[error("there is no builtin network {name:?}{}; builtin: {known}", hint(nearest))]
    UnknownBuiltin {
        /// The name as written.
        name: String,
        /// The likely intended name.
        nearest: Option<String>,
        /// All builtin names.
        known: String,
    },

    /// The bytes are not a safetensors file.
    #[error("the weights are not a readable safetensors file: {source}")]
    Safetensors {
        /// The parser's error.
        source: safetensors::SafeTensorError,
    },
    /// A tensor's element type cannot become f32.
    #[error("tensor {tensor:?} has type {found}; expected F32, F16, BF16 or F64: convert it before saving")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// Its element type.
        found: String,
    },
    /// The network needs a tensor that the weights lack.
    #[error("{tensor}: missing, expected {expected:?}{}; the weights are of another network", hint(nearest))]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The likely same tensor under another name.
        nearest: Option<String>,
    },
    /// The weights hold a tensor that the network does not know.
    #[error("{tensor}: the network {network:?} has no such tensor{}; remove it or rename the layer", hint(nearest))]
    ExtraTensor {
        /// The tensor.
        tensor: String,
        /// The network.
        network: String,
        /// The likely intended tensor.
        nearest: Option<String>,
    },
    /// A tensor has another shape than the network needs.
    #[error("{tensor}: expected {expected:?}, found {found:?}; the weights are of another network")]
    TensorShape {
        /// The tensor.
        tensor: String,
        /// The shape that the network needs.
        expected: Vec<usize>,
        /// The shape in the weights.
        found: Vec<usize>,
    },
    /// A tensor's values do not fill its shape.
    #[error("{tensor}: shape {shape:?} needs {} values, found {found}", shape.iter().product::<usize>())]
    TensorLength {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many values were given.
        found: usize,
    },

    /// The text does not name a device.
    #[error("unknown device {found:?}; use `cpu`, `cuda` or `cuda:<number>`")]
    UnknownDevice {
        /// The text.
        found: String,
    },
    /// A GPU was asked for, but the program was built without CUDA.
    #[error(
        "{device}: this program was built without CUDA; build it with `cargo build --release --features cuda`, or use `cpu`"
    )]
    NoCuda {
        /// The device asked for.
        device: String,
    },
    /// The device could not be opened.
    #[error("{device}: cannot be opened: {source}; check that the machine has it, or use `cpu`")]
    DeviceFailed {
        /// The device asked for.
        device: String,
        /// The cause.
        source: Box<candle_core::Error>,
    },
    /// The batch has another shape than the network's input, or than a layer's output.
    #[error("{what}: expected a batch of shape [rows, {}], found {found:?}", join(expected))]
    BatchShape {
        /// "the network's input" or the layer.
        what: String,
        /// The shape of one row.
        expected: Vec<usize>,
        /// The batch's shape.
        found: Vec<usize>,
    },
    /// The values do not make whole rows.
    #[error("{found} values do not make rows of {row_len} each; check the input's shape")]
    PartialRow {
        /// Values in one row.
        row_len: usize,
        /// Values given.
        found: usize,
    },
    /// Given layer outputs hold different numbers of rows.
    #[error("layer {layer:?}: expected {expected} rows as in the other given layers, found {found}")]
    RowCount {
        /// The layer.
        layer: String,
        /// Rows of the first given layer.
        expected: usize,
        /// Rows of this one.
        found: usize,
    },
    /// No layer has this index.
    #[error("layer index {found} is out of range; the network has {n_layers} layers")]
    LayerIndex {
        /// The index.
        found: usize,
        /// Number of layers.
        n_layers: usize,
    },
    /// No layer has this name.
    #[error("there is no layer {name:?}{}; layers: {known}", hint(nearest))]
    UnknownLayer {
        /// The name.
        name: String,
        /// The likely intended name.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// The given layer outputs do not lead to a wanted layer.
    #[error(
        "layer {wanted:?} cannot be computed from what was given: that needs {missing}; give it, or an ancestor that covers it, or run from the input"
    )]
    NotSufficient {
        /// The wanted layer.
        wanted: String,
        /// What is missing.
        missing: String,
    },
    /// An embedding was fed a number that is not an id of its vocabulary.
    #[error("layer {layer:?}: row {row} holds the id {found}; expected a whole number in 0..{vocab}")]
    BadId {
        /// The layer.
        layer: String,
        /// The row in the batch.
        row: usize,
        /// The value.
        found: f32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// The tensor library failed while it computed a layer.
    #[error("layer {layer:?} ({op}) failed: {source}")]
    Compute {
        /// The layer.
        layer: String,
        /// Its kind.
        op: String,
        /// The cause.
        source: Box<candle_core::Error>,
    },
    /// The receiver of layer outputs refused one.
    #[error("layer {layer:?}: its output could not be stored: {source}")]
    Sink {
        /// The layer.
        layer: String,
        /// The receiver's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// A pattern is not a valid glob.
    #[error("layer pattern {pattern:?}: {message}; write names or globs joined by commas, such as `conv*,logits`")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        message: String,
    },
    /// A pattern matches no layer.
    #[error("layer pattern {pattern:?} matches no layer{}; layers: {known}", hint(nearest))]
    NoMatch {
        /// The pattern.
        pattern: String,
        /// The likely intended name.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// The network's last layer cannot be trained against class labels.
    #[error(
        "layer {layer:?}: to train, the last layer must give one score per class (shape [classes]), found {found:?}"
    )]
    NotAClassifier {
        /// The last layer.
        layer: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// Labels and images do not fit.
    #[error("{n_labels} labels for {n_rows} rows; expected one label per row")]
    LabelCount {
        /// Number of labels.
        n_labels: usize,
        /// Number of rows.
        n_rows: usize,
    },
    /// A label is not a class of the network.
    #[error("row {row} has label {label}; the network's classes are 0..{n_classes}")]
    LabelRange {
        /// The row.
        row: usize,
        /// The label.
        label: u32,
        /// Number of classes.
        n_classes: usize,
    },
    /// A training setting is out of range.
    #[error("{name} is {found}; expected {expected}")]
    BadSetting {
        /// The setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// The allowed range.
        expected: &'static str,
    },
    /// The loss is no longer a number.
    #[error("the loss became {loss} at batch {batch}; use a smaller learning rate, or check the input for NaN")]
    Diverged {
        /// The loss.
        loss: f32,
        /// The batch in the epoch.
        batch: usize,
    },
}

fn join(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// Results stay cheap to return.
const _: () = assert!(size_of::<NetworkError>() <= 128);
