//! Go's ways of printing things, which the history of images is written in.
