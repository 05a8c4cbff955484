"""What each operator means, by family. Importing this package fills the table of `registry`."""
