-- From version 3 of the MetadataDB to version 4: which partitions `compact` need not look at again.
ALTER TABLE partitions ADD COLUMN compact INTEGER NOT NULL DEFAULT 0;
