//! `/metrics`, `/livez` and `/readyz` of the agent.
