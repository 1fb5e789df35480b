-- The MetadataDB. FORMAT.md, "Catalogue", says what each column means.
-- AUTOINCREMENT: a number is never used again, so that what a reader remembers of one cannot become another's.
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE datasets (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  source TEXT NOT NULL,
  fingerprint BLOB NOT NULL,
  n_rows INTEGER NOT NULL,
  row_shape TEXT NOT NULL,
  created INTEGER NOT NULL
) STRICT;

CREATE TABLE models (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  kind TEXT NOT NULL,
  description TEXT NOT NULL,
  weights BLOB,
  dataset_id INTEGER REFERENCES datasets (id),
  complete INTEGER NOT NULL,
  created INTEGER NOT NULL,
  UNIQUE (project, name, version)
) STRICT;

CREATE TABLE intermediates (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  position INTEGER NOT NULL,
  kind TEXT NOT NULL,
  shape TEXT,
  dtype INTEGER,
  unit_axis INTEGER,
  scheme TEXT,
  params BLOB,
  block_rows INTEGER NOT NULL,
  group_units INTEGER,
  page_rows INTEGER NOT NULL,
  schema BLOB,
  n_rows INTEGER NOT NULL,
  max_span INTEGER NOT NULL,
  n_query INTEGER NOT NULL DEFAULT 0,
  clamped INTEGER NOT NULL DEFAULT 0,
  measured_rows INTEGER NOT NULL DEFAULT 0,
  errors BLOB,
  UNIQUE (model_id, name)
) STRICT;

CREATE TABLE partitions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  len_bytes INTEGER NOT NULL,
  n_chunks INTEGER NOT NULL
) STRICT;

CREATE TABLE chunks (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  hash BLOB NOT NULL UNIQUE,
  partition_id INTEGER NOT NULL REFERENCES partitions (id),
  offset INTEGER NOT NULL,
  len_bytes INTEGER NOT NULL
) STRICT;

CREATE TABLE row_sets (
  id INTEGER PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  rows BLOB NOT NULL
) STRICT;

CREATE TABLE row_blocks (
  intermediate_id INTEGER NOT NULL REFERENCES intermediates (id) ON DELETE CASCADE,
  block_no INTEGER NOT NULL,
  min_row INTEGER NOT NULL,
  max_row INTEGER NOT NULL,
  n_rows INTEGER NOT NULL,
  row_set_id INTEGER NOT NULL REFERENCES row_sets (id),
  chunks BLOB NOT NULL,
  PRIMARY KEY (intermediate_id, min_row, block_no)
) STRICT, WITHOUT ROWID;

CREATE TABLE operators (
  hash BLOB PRIMARY KEY,
  len_bytes INTEGER NOT NULL,
  kind TEXT NOT NULL,
  created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE costs (
  machine TEXT NOT NULL,
  what TEXT NOT NULL,
  subject TEXT NOT NULL,
  n INTEGER NOT NULL,
  mean REAL NOT NULL,
  m2 REAL NOT NULL,
  updated INTEGER NOT NULL,
  PRIMARY KEY (machine, what, subject)
) STRICT, WITHOUT ROWID;

-- Foreign keys are followed backwards when chunks, partitions and row sets are removed.
CREATE INDEX chunks_of_partition ON chunks (partition_id);
CREATE INDEX blocks_of_row_set ON row_blocks (row_set_id);
