-- From version 1 of the MetadataDB to version 2: what computed an intermediate, chunks coded against others, checksums
-- of RowBlocks, the run record of pipelines, similar chunks, queries by column, and indexes.
ALTER TABLE intermediates ADD COLUMN stage BLOB;
ALTER TABLE intermediates ADD COLUMN linked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE intermediates ADD COLUMN n_withheld INTEGER NOT NULL DEFAULT 0;
ALTER TABLE intermediates ADD COLUMN group_bytes BLOB;
ALTER TABLE chunks ADD COLUMN base_id INTEGER REFERENCES chunks (id);
ALTER TABLE chunks ADD COLUMN saved_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE row_blocks ADD COLUMN checksum INTEGER;

-- Stages pass columns on, and settings of a pipeline have the same ones: each schema is there once.
CREATE TABLE schemas (hash BLOB PRIMARY KEY, bytes BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE stages (
  model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  name TEXT NOT NULL,
  operator TEXT NOT NULL,
  description TEXT NOT NULL,
  inputs TEXT NOT NULL,
  fingerprint BLOB NOT NULL,
  artifact BLOB,
  seconds REAL NOT NULL,
  n_rows INTEGER NOT NULL,
  metrics TEXT NOT NULL,
  PRIMARY KEY (model_id, position)
) STRICT, WITHOUT ROWID;

-- No foreign key: rows of chunks that are gone are harmless, and `gc` removes them.
CREATE TABLE lsh (
  band INTEGER NOT NULL,
  hash INTEGER NOT NULL,
  chunk_id INTEGER NOT NULL,
  PRIMARY KEY (band, hash, chunk_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE column_queries (
  intermediate_id INTEGER NOT NULL REFERENCES intermediates (id) ON DELETE CASCADE,
  columns TEXT NOT NULL,
  n_query INTEGER NOT NULL,
  PRIMARY KEY (intermediate_id, columns)
) STRICT, WITHOUT ROWID;

CREATE TABLE indexes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  intermediate_id INTEGER NOT NULL REFERENCES intermediates (id) ON DELETE CASCADE,
  kind TEXT NOT NULL,
  params TEXT NOT NULL,
  file TEXT NOT NULL,
  len_bytes INTEGER NOT NULL,
  created INTEGER NOT NULL
) STRICT;

CREATE INDEX intermediates_by_stage ON intermediates (stage) WHERE stage IS NOT NULL;
CREATE INDEX chunks_of_base ON chunks (base_id) WHERE base_id IS NOT NULL;
CREATE INDEX indexes_of_intermediate ON indexes (intermediate_id);
