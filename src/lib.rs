//! The face of Mistique.
