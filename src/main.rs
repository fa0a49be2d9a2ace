//! Packhorse. 
fn main() {}
