-- From version 4 of the MetadataDB to version 5: similar columns lie by their rows, so that finding them does not slow down
-- as the store grows. Signatures of before are of another kind, and what they would have found is only not coded against.
DROP TABLE lsh;
CREATE TABLE lsh (
  place INTEGER NOT NULL,
  chunk_id INTEGER NOT NULL,
  PRIMARY KEY (place, chunk_id)
) STRICT, WITHOUT ROWID;
