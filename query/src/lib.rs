//! Answers: keys, plans, the ChunkReader and diagnostics.
