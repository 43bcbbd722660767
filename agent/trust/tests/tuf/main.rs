//! TUF metadata of every kind, shown to a host.

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod metadata;
#[cfg(test)]
mod roots;
