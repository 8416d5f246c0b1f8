"""Thirty questions about the corpus of stdlib_corpus.py, each with the entries that answer it.

The expected answers were written before any search results were seen, and have not been changed since. So the demo
is fair. But its scores are coarse: a single question changes a search's score by 3.3 percentage points.
"""

from dataclasses import dataclass

__all__ = ["KINDS", "QUESTIONS", "Question"]


@dataclass(frozen=True)
class Question:
    """A question that a Python programmer might ask.

    Args:
        text: The question, in plain words.
        expected: The names of one to three entries that answer the question. A search needs to find only one of them.
    """

    text: str
    expected: tuple[str, ...]


# No word of the question is in the name of the answer.
_PARAPHRASES = (
    Question("a scratch folder that deletes itself when I am done", ("tempfile.TemporaryDirectory",)),
    Question("remember earlier results to avoid repeating a slow call", ("functools.lru_cache", "functools.cache")),
    Question("how many bytes are still free on the drive", ("shutil.disk_usage",)),
    Question("guess which word somebody meant who made a typo", ("difflib.get_close_matches",)),
    Question("ignore an error inside a block of code", ("contextlib.suppress",)),
    Question("delete a folder and everything in it", ("shutil.rmtree",)),
    Question(
        "arrange jobs so that each comes after those it depends on",
        ("graphlib.TopologicalSorter", "graphlib.TopologicalSorter.static_order"),
    ),
    Question(
        "break a long paragraph so that no line exceeds 70 characters",
        ("textwrap.wrap", "textwrap.fill", "textwrap.TextWrapper"),
    ),
    Question("duplicate a nested object so that changing one leaves the other alone", ("copy.deepcopy",)),
    Question("catch what print writes to the screen", ("contextlib.redirect_stdout",)),
)
_RARE_TERMS = (
    Question("current time as an RFC 2822 date", ("email.utils.formatdate", "email.utils.format_datetime")),
    Question("HMAC of a message", ("hmac.new", "hmac.digest", "hmac.HMAC")),
    Question("decode Ascii85", ("base64.a85decode",)),
    Question("CRAM-MD5 login to a mail server", ("imaplib.IMAP4.login_cram_md5", "smtplib.SMTP.auth_cram_md5")),
    Question("IPv4-mapped IPv6 address", ("ipaddress.IPv6Address.ipv4_mapped",)),
    Question("sample from the von Mises distribution", ("random.Random.vonmisesvariate",)),
    Question("convert a PEM certificate to DER", ("ssl.PEM_cert_to_DER_cert",)),
    Question("decode quoted-printable", ("quopri.decode", "email.quoprimime.decode")),
    Question("ALPN protocol that was negotiated", ("ssl.SSLObject.selected_alpn_protocol",)),
    Question("check the CRC of every file in a zip archive", ("zipfile.ZipFile.testzip",)),
)
# The question shares some words with the name or the docstring of the answer.
_OTHERS = (
    Question("split a shell command line into words", ("shlex.split",)),
    Question("where is a program on the PATH", ("shutil.which",)),
    Question(
        "unit test that expects an exception",
        ("unittest.TestCase.assertRaises", "unittest.TestCase.assertRaisesRegex"),
    ),
    Question("turn a relative link into an absolute URL", ("urllib.parse.urljoin",)),
    Question("start a new log file every night", ("logging.handlers.TimedRotatingFileHandler",)),
    Question("call a blocking function in a thread from asyncio", ("asyncio.to_thread",)),
    Question("give up on a coroutine after a few seconds", ("asyncio.wait_for", "asyncio.timeout")),
    Question(
        "run a program and capture what it prints",
        ("subprocess.run", "subprocess.check_output", "subprocess.getoutput"),
    ),
    Question(
        "find files by a wildcard pattern in all subfolders",
        ("pathlib.Path.rglob", "glob.glob", "pathlib.Path.glob"),
    ),
    Question("count how often each item occurs in a list", ("collections.Counter",)),
)

# {what the questions have in common: ten questions}
KINDS: dict[str, tuple[Question, ...]] = {
    "paraphrases": _PARAPHRASES,
    "rare terms and names": _RARE_TERMS,
    "some words in common": _OTHERS,
}
QUESTIONS: tuple[Question, ...] = tuple(question for questions in KINDS.values() for question in questions)
