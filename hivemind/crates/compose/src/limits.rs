//! What one reading takes at most, so that no text can make it grow without bound.

/// The most bytes of one file, whatever it holds: what the API takes in one request.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The most bytes of all files of one reading.
pub const TOTAL_BYTES_MAX: usize = 16 << 20;
/// The most files of one reading, those with variables included.
pub const FILES_MAX: usize = 1_000;
/// The most documents of one reading. People write one a file.
pub const DOCUMENTS_MAX: usize = 100;
/// How often files of variables are read at most: a few for each service.
pub const VARIABLE_READINGS_MAX: usize = 4_000;
/// The most services of a project: what a namespace is known to hold.
pub const SERVICES_MAX: usize = 1_000;
/// How deep files may include each other. People write two or three.
pub const INCLUDE_DEPTH_MAX: usize = 16;
/// How long a chain of services that extend each other may be.
pub const EXTENDS_DEPTH_MAX: usize = 32;
/// How deep defaults may be nested in one value.
pub const INTERPOLATION_DEPTH_MAX: usize = 16;
/// The most bytes that values may grow to by their variables, all together.
pub const INTERPOLATED_BYTES_MAX: usize = 8 << 20;
/// The most bytes that all services, what they extend and what aliases stand for may come to.
pub const MERGED_BYTES_MAX: usize = 8 << 20;
/// The most ports of a project once ranges are written out: as many as a machine has of one protocol.
pub const PORTS_MAX: usize = 65_536;
