"""The OpenAPI schema as a page that a person reads: drawn here, with no script and nothing from elsewhere."""

from collections.abc import Sequence
from html import escape
from typing import Any

__all__ = ["docs_page"]


def docs_page(schema: dict[str, Any]) -> str:
    """An HTML page of every operation: its parameters, its body and its answers, and the records that these are made of."""
    info = schema["info"]
    operations = [
        _operation(method, path, operation) for path, methods in schema["paths"].items() for method, operation in methods.items()
    ]
    records = [_record(name, record) for name, record in sorted(schema.get("components", {}).get("schemas", {}).items())]
    keys = [
        f"<li>{_text(scheme.get('description', name))}</li>"
        for name, scheme in schema.get("components", {}).get("securitySchemes", {}).items()
    ]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(info["title"])}: the HTTP interface</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page/levels.css">
<link rel="stylesheet" href="/page/page.css">
</head>
<body>
<header><h1>{_text(info["title"])}</h1><p>{_text(info.get("description", ""))}</p>
<p>The same for programs: <a href="/openapi.json">openapi.json</a>.</p></header>
<main>
<section><h2>Keys</h2><p>Where the service wants a key, send it in one of these ways:</p><ul>{"".join(keys)}</ul></section>
{"".join(operations)}
<section><h2>Records</h2>{"".join(records)}</section>
</main>
</body>
</html>
"""


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [
        (each["name"], each["in"], _kind(each["schema"]), each.get("description", "")) for each in operation.get("parameters", ())
    ]
    fields = [
        (name, "form" if "form" in media else "body", _kind(field), field.get("description", ""))
        for media, content in operation.get("requestBody", {}).get("content", {}).items()
        for name, field in content["schema"].get("properties", {}).items()
    ]
    answers = [(code, _content(answer), answer["description"]) for code, answer in sorted(operation["responses"].items())]
    key = "" if operation.get("security") else "<p>Needs no key.</p>"
    sent = _table("What is sent", ("name", "where", "kind", "meaning"), [*parameters, *fields])
    return (
        f"<section><h2><code>{method.upper()} {_text(path)}</code></h2><p>{_text(operation.get('description', ''))}</p>{key}"
        f"{sent}{_table('What comes back', ('status', 'record', 'meaning'), answers)}</section>"
    )


def _record(name: str, record: dict[str, Any]) -> str:
    required = record.get("required", ())
    fields = [
        (field, _kind(schema), "" if field in required else "may be lacking", schema.get("description", ""))
        for field, schema in record.get("properties", {}).items()
    ]
    return f'<h3 id="{_text(name)}">{_text(name)}</h3><p>{_text(record.get("description", ""))}</p>' + _table(
        "Its fields", ("name", "kind", "", "meaning"), fields
    )


def _table(caption: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{_text(each)}</th>' for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _content(answer: dict[str, Any]) -> str:
    return ", ".join(_kind(content.get("schema", {})) or media for media, content in answer.get("content", {}).items())


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_kind(each) for each in schema[several])
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return " or ".join(repr(each) for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {})) or 'anything'}"
    return "file" if schema.get("format") == "binary" else str(schema.get("type", ""))


def _text(words: str) -> str:
    return escape(words)
