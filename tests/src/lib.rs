//! Harnesses shared by the end-to-end tests: starting the real binary in a sealed directory, reading its JSON.
