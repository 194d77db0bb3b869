-- The plan of a large run is packed: it was a quarter of the file, and another of its log. What is there stays as it is.

-- Bytes of the JSON that `body` is an LZ4 block of; NULL where it is the JSON itself.
ALTER TABLE plans ADD COLUMN unpacked INTEGER CHECK (unpacked IS NULL OR unpacked > 0);
