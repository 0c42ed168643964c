"""The study of docs/pocket-study.md."""
