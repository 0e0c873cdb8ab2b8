-- The ways to a tenant's receivers that it has and has not turned off: an alert is a message for each.
CREATE VIEW alert_channels AS
    SELECT tenant, 'slack' AS channel FROM slack_webhooks WHERE enabled
    UNION ALL
    SELECT tenant, 'webhook' FROM webhooks WHERE enabled;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_worker') THEN
        GRANT SELECT ON alert_channels TO flagmeter_worker;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'flagmeter_operator') THEN
        GRANT SELECT ON alert_channels TO flagmeter_operator;
    END IF;
END
$$;
