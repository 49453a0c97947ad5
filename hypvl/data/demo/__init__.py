"""The demo's data: drawn scenes, digits, their captions, and the mapper that reads them."""
