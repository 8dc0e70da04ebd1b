"""Others' files and typed records of them: micrographs, annotations, coordinates, frames."""
