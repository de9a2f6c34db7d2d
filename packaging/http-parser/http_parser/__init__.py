"""The part of http-parser that pymesos uses, for Pythons on which http-parser itself no longer compiles."""
