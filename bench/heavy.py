"""A large real load, about 180 MB: numpy, pandas, a good part of the standard library, and a table of records."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import decimal
import difflib
import email.mime.multipart
import ftplib
import http.server
import imaplib
import logging.config
import multiprocessing.pool
import pydoc
import smtplib
import sqlite3
import ssl
import statistics
import tarfile
import unittest.mock
import urllib.request
import xml.dom.minidom
import xml.etree.ElementTree
import xmlrpc.client
import zipfile

from . import frames

RECORDS = 200_000  # dicts; with the modules they make about 180 MB

MODULES = (
    asyncio, concurrent.futures, ctypes, decimal, difflib, email.mime.multipart, ftplib, frames, http.server, imaplib,
    logging.config, multiprocessing.pool, pydoc, smtplib, sqlite3, ssl, statistics, tarfile, unittest.mock,
    urllib.request, xml.dom.minidom, xml.etree.ElementTree, xmlrpc.client, zipfile,
)  # fmt: skip


def _record(number: int) -> dict[str, object]:
    return {
        "number": number,
        "name": f"customer {number}",
        "mail": f"customer.{number}@example.org",
        "balance": number * 1.25,
        "tags": [number % 7, number % 11],
    }


records = [_record(number) for number in range(RECORDS)]
