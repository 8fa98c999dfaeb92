// Light, dark, or as the system has it. `public/theme.js` applies it before the first paint.

export type ThemeName = "system" | "light" | "dark";

const ORDER: ThemeName[] = ["system", "light", "dark"];

class Theme {
  name: ThemeName = $state(read());

  next(): void {
    this.name = ORDER[(ORDER.indexOf(this.name) + 1) % ORDER.length] ?? "system";
    const root = document.documentElement;
    if (this.name === "system") delete root.dataset.theme;
    else root.dataset.theme = this.name;
    try {
      localStorage.setItem("theme", this.name);
    } catch {
      // Storage is off: it holds until the page is left.
    }
  }
}

function read(): ThemeName {
  const set = document.documentElement.dataset.theme;
  return set === "light" || set === "dark" ? set : "system";
}

export const theme = new Theme();
