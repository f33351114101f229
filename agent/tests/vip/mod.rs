//! Parts of the tests of the VIP driver.

mod conflicts;
mod heals;
