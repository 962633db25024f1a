"""Where a key may go."""

import pytest

from wenlu.base.errors import UserError
from wenlu.prompting.endpoint.address import Address


@pytest.mark.parametrize("url, variable, message", [
    ("api.example.com/v1", "", "is no address: give what stands before /completions"),
    ("ftp://example.com", "", "is no address"),
    ("http://[::1", "", "is no address"),
    ("http://example.com:port/v1", "", "is no address"),
    ("https://me:secret@example.com/v1", "", "holds more than a place"),
    ("https://example.com/v1?key=secret", "", "holds more than a place"),
    ("https://example.com/v1/chat/completions/", "", "names one of the endpoint's paths"),
    ("http://example.com/v1", "KEY", "the key would go to example.com without encryption: use https"),
    ("http://10.0.0.7:8000/v1", "KEY", "without encryption"),
    ("http://localhost.example.com/v1", "KEY", "without encryption"),
])  # fmt: skip
def test_refused(url, variable, message):
    with pytest.raises(UserError) as caught:
        Address(url, "m", variable)
    assert message in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:8000/v1", "https://a.b/v1"]
)
def test_taken(url):
    assert Address(url + "/", "m", "KEY").base == url
    assert Address("http://10.0.0.7/v1", "m", "KEY", plain_http=True).host == "10.0.0.7"
    assert Address("http://10.0.0.7/v1", "m").key() == ""


def test_a_model_is_named():
    with pytest.raises(UserError, match="needs the name of a model"):
        Address("https://a.b/v1", "")


@pytest.mark.parametrize("value", ["", "secret\n", "se cret", "sécret"])
def test_keys_that_cannot_be_sent_are_not_shown(monkeypatch, value):
    monkeypatch.setenv("KEY", value)
    with pytest.raises(UserError, match=r"KEY.*(put the endpoint's key there|set it anew)") as caught:
        Address("https://a.b/v1", "m", "KEY").key()
    assert not value or value.strip() not in str(caught.value)
