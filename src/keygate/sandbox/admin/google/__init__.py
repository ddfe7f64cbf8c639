"""Google Cloud in the sandbox: one door for the eight services and the token endpoint that keys for the Gemini API need.

    /google/iam/v1/projects/…              service accounts and their keys
    /google/apikeys/v2/projects/…          API keys bound to service accounts, by long-running operations
    /google/cloudresourcemanager/v3/…      projects and their IAM policies
    /google/orgpolicy/v2/projects/…        organisation policies in force
    /google/serviceusage/v1[beta1]/…       services and quota overrides
    /google/cloudbilling/v1/…              which billing account pays
    /google/billingbudgets/v1/…            budgets and spend caps
    /google/bigquery/bigquery/v2/…         queries of the billing export
    /google/oauth2/token                   a service account's signed assertion for an access token

Each is what the service's own host has (`https://iam.googleapis.com/v1/…`): the official clients take it as their API endpoint.
"""

from keygate.sandbox.admin.google.api import GoogleAdmin
from keygate.sandbox.admin.google.cloud import GoogleCloud

__all__ = ["GoogleAdmin", "GoogleCloud"]
