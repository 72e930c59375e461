//! The index against a model that keeps every event of every stream in plain lists.

mod base;
mod damage;
mod memory;
mod model;
mod sidecar;
