//! The window against copies made pixel by pixel.
