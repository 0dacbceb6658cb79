"""The page: figures, tables and pictures drawn from plain data; reads no store."""
