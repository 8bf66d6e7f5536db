"""Write the JSON schema of an audit's record, which ships with the package, from the model that writes the records.

make audit-schema
"""

from __future__ import annotations

from unmerge.auditing.schema import FILE, schema
from unmerge.core.records import write_json

if __name__ == "__main__":
    write_json(FILE, schema())
