//! The one binary: every role and every operator command of Ambit.

fn main() {}
