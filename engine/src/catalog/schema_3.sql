-- From version 2 of the MetadataDB to version 3: what fifty pipelines say of themselves, in few bytes.
ALTER TABLE models ADD COLUMN packed BLOB;

-- With row numbers, so that rows of a kilobyte need no pages of their own.
ALTER TABLE schemas RENAME TO schemas_2;
CREATE TABLE schemas (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, bytes BLOB NOT NULL) STRICT;
INSERT INTO schemas (hash, bytes) SELECT hash, bytes FROM schemas_2;
DROP TABLE schemas_2;

-- A stage's description is mostly what its model's says: a frame that refers to that, or a text as before.
ALTER TABLE stages RENAME TO stages_2;
CREATE TABLE stages (
  model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  name TEXT NOT NULL,
  operator TEXT NOT NULL,
  description ANY NOT NULL,
  inputs TEXT NOT NULL,
  fingerprint BLOB NOT NULL,
  artifact BLOB,
  seconds REAL NOT NULL,
  n_rows INTEGER NOT NULL,
  metrics TEXT NOT NULL,
  PRIMARY KEY (model_id, position)
) STRICT, WITHOUT ROWID;
INSERT INTO stages SELECT * FROM stages_2;
DROP TABLE stages_2;
