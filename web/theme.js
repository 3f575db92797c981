// Light or dark, before anything is drawn. Not a module: those wait for the page.

const THEMES = ["auto", "light", "dark"];
const THEME = "recollect:theme"; // the machine's, whoever is signed in

document.documentElement.dataset.theme = THEMES.find((one) => one === localStorage.getItem(THEME)) ?? "auto";

addEventListener("recollect-theme", ({ detail }) => {
  document.documentElement.dataset.theme = detail;
  localStorage.setItem(THEME, detail);
});
