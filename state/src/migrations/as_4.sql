-- Plans of schemas 1 to 3 in the shape of schema 4, for whoever only reads: none of them is packed.

CREATE TEMP VIEW plans AS SELECT run, digest, body, NULL AS unpacked, sha256 FROM main.plans;
