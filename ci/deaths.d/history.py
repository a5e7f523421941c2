"""The aggregator's history, asked over HTTPS as anybody would."""

import http.client
import json
import ssl
import urllib.parse

NAME = "nodetap-aggregator"


class History:
    """One connection to the aggregator; opened anew when it breaks."""

    def __init__(self, address, ca, token, port=9444):
        self.address, self.port, self.token = address, port, token
        self.context = ssl.create_default_context(cafile=ca)
        self.connection = None

    def records(self, **filters):
        """The rows of one page, newest first."""
        query = urllib.parse.urlencode(filters)
        try:
            if self.connection is None:
                self.connection = Connection(self.address, self.port, timeout=10, context=self.context)
            self.connection.request("GET", f"/api/v1/records?{query}", headers={"Authorization": f"Bearer {self.token}"})
            answer = self.connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection = None
            raise
        if answer.status != 200:
            raise OSError(f"the history answers {answer.status}: {body[:300]!r}")
        return json.loads(body)["records"]


class Connection(http.client.HTTPSConnection):
    """To a pod's address, whose certificate names the Service."""

    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = self._context.wrap_socket(self.sock, server_hostname=NAME)
