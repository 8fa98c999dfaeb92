// Numbers and times as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB"];

/** `1.4 MB`: powers of 1,000, three digits at most. */
export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1_000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit] ?? ""}`;
}

const WHOLE = new Intl.NumberFormat("en");

export function whole(count: number): string {
  return WHOLE.format(count);
}

/** `3 replicas`, `1 replica`. */
export function many(count: number, one: string, several = `${one}s`): string {
  return `${whole(count)} ${count === 1 ? one : several}`;
}

/** `4 min`, from a number of milliseconds. */
export function span(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h`;
  return many(Math.floor(seconds / 86_400), "day");
}

/** `14:03:07`, in the time of whoever looks. */
export function clock(time: string): string {
  return new Date(time).toLocaleTimeString("en-GB");
}

/** An address with its port. */
export function withPort(address: string, port: number | null | undefined): string {
  if (port == null) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** `spoofed_source` as words. */
export function words(name: string): string {
  return name.replaceAll("_", " ");
}

/** What a control says while it would change nothing. */
export const CUT_OFF = "Not connected to the daemon; nothing can be changed now";
