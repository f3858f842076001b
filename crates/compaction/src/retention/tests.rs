//! Retention against a model.
