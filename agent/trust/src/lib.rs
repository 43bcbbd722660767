//! TUF verification over bytes that it is given.
